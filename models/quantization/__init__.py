"""Quantization schemes: how matrices are rounded, and with what activations they are multiplied.

A matrix of a linear layer arrives as ``(out_features, in_features)`` = ``(N, K)``, the checkpoint's
orientation. An embedding table keeps its ``(vocabulary, hidden)`` orientation, since one token
reads one row; what is said of K below holds for its second axis. Where the numbers lie is said by
the layout of the target's kernels (see `weight_layout`).

:mod:`~mvlm.models.quantization.formats` has the formats of weights,
:mod:`~mvlm.models.quantization.schemes` the schemes, :mod:`~mvlm.models.quantization.parts` which
scheme each part of a model has, and :mod:`~mvlm.models.quantization.matrix` rounds, by the scales
that :mod:`~mvlm.models.quantization.table_search` chooses for levels.

Integers come in groups of 32 along K that share a scale: the integers, and scales
``(N, ceil(K / 32))``, float16. With ``q4nl`` and ``q3nl`` scales are bytes, which take half of the
bits: a multiple, 0 to 31, of a float32 scale for each row ``(N,)``, and one of eight offsets of the
levels (see :mod:`~mvlm.models.quantization.group_scales`). Each 16 rows have a table of levels,
int8, ``(ceil(N / 16), 16)``. A K that no 32 divides ends in a shorter group.

==========  ==============================================================================
format      a weight
==========  ==============================================================================
``float32`` IEEE single precision
``float16`` IEEE half precision
``q4mlc``   mlc-llm's 4 bits: ``w ~ (nibble - 7) * scale`` with nibbles 0 to 14
``q4nl``    4 bits, the index of one of 16 levels: ``w ~ (levels[index] + offset) * scale``
``q3nl``    3 bits, the index of one of 8 levels
``q8``      8 bits, -127 to 127: ``w ~ integer * scale``
``q16``     16 bits, -8191 to 8191: ``w ~ integer * scale / 8192``
==========  ==============================================================================

A table is the better of two: levels that lie closer to each other near zero, where weights are more
often than far from it, and even ones, for weights that were on such a grid before (a file of 4
bits). Levels are integers within -16 to 16, and kernels look them up by a byte shuffle. 16 products
of such a level and an activation come to 16 * 16 * 127 = 32,512 at most, which 16 bits hold:
kernels of CPUs that add products of bytes in 16 bits (AVX2) need no more instructions than for
nibbles. What a group's offset adds is the offset times the sum of its activations, one product for
each output and group.

Where a scheme's activations are ``int8``, they are quantized while the model runs: each group of
32 of a row by ``scale = max|x| / 127`` in float32 and ``rint(x * (127 / max|x|))``; with ``int16``
8191 takes the place of 127. With 4 and 3 bits up to eight groups share a scale
(`fit_groups_per_scale`): relative to what those lose of a weight, the coarser activations hardly
show. Products are summed exactly within a group, and groups in float32. 8191 is the largest number
of whose squares 32 fit into an int32; steps of 1/8191 of a group's largest magnitude are finer than
float16's for all weights above an eighth of it.
"""

from mvlm.models.quantization.bit_plan import PLAN_SCHEMES, UNITS, BitPlan, LayerPlan
from mvlm.models.quantization.formats import (
    BYTE_ZERO,
    FLOAT16,
    FLOAT32,
    GROUP_SIZE,
    MAX_LEVEL,
    MIN_ABSMAX,
    Q3NL,
    Q4MLC,
    Q4NL,
    Q8,
    Q16,
    QMAX,
    TABLE_LEVELS,
    TABLE_ROWS,
    WEIGHT_FORMATS,
    Activations,
    WeightFormat,
    byte_zero_point,
    format_named,
    is_of_levels,
)
from mvlm.models.quantization.group_scales import (
    LEAST_OFFSET,
    MAX_SCALE,
    OFFSET_STEP,
    OFFSETS,
    SCALE_BITS,
    nearest_offsets,
    offset_values,
    pack_scales,
    read_offsets,
    read_scales,
)
from mvlm.models.quantization.matrix import (
    QuantizedMatrix,
    concatenate,
    dequantize,
    join_indices,
    nearest_values,
    quantize,
    quantize_with_scales,
    round_to_tables,
    store_scales,
    to_float16,
)
from mvlm.models.quantization.parts import (
    LEAST_BITS,
    MOST_BITS,
    LayerSchemes,
    Quantization,
    plan_quantization,
)
from mvlm.models.quantization.schemes import (
    CACHE_STORAGES,
    DEFAULT_SCHEME,
    SCHEMES,
    Scheme,
    check_storage,
    find_scheme,
    fit_groups_per_scale,
)
from mvlm.models.quantization.table_search import TableScales, find_table_scales

__all__ = [
    "BYTE_ZERO",
    "CACHE_STORAGES",
    "DEFAULT_SCHEME",
    "FLOAT16",
    "FLOAT32",
    "GROUP_SIZE",
    "LEAST_BITS",
    "LEAST_OFFSET",
    "MAX_LEVEL",
    "MAX_SCALE",
    "MIN_ABSMAX",
    "MOST_BITS",
    "OFFSETS",
    "OFFSET_STEP",
    "PLAN_SCHEMES",
    "Q3NL",
    "Q4MLC",
    "Q4NL",
    "Q8",
    "Q16",
    "QMAX",
    "SCALE_BITS",
    "SCHEMES",
    "TABLE_LEVELS",
    "TABLE_ROWS",
    "UNITS",
    "WEIGHT_FORMATS",
    "Activations",
    "BitPlan",
    "LayerPlan",
    "LayerSchemes",
    "Quantization",
    "QuantizedMatrix",
    "Scheme",
    "TableScales",
    "WeightFormat",
    "byte_zero_point",
    "check_storage",
    "concatenate",
    "dequantize",
    "find_scheme",
    "find_table_scales",
    "fit_groups_per_scale",
    "format_named",
    "is_of_levels",
    "join_indices",
    "nearest_offsets",
    "nearest_values",
    "offset_values",
    "pack_scales",
    "plan_quantization",
    "quantize",
    "quantize_with_scales",
    "read_offsets",
    "read_scales",
    "round_to_tables",
    "store_scales",
    "to_float16",
]
