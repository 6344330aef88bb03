"""Quantization schemes: how matrices are rounded, and with what activations they are multiplied.

A matrix of a linear layer arrives as ``(out_features, in_features)`` = ``(N, K)``, the checkpoint's
orientation. An embedding table keeps its ``(vocabulary, hidden)`` orientation, since one token
reads one row; what is said of K below holds for its second axis. Where the numbers lie is said by
the layout of the target's kernels (see `weight_layout`).

Integers come in groups of 32 along K that share a scale: the integers, and scales
``(N, ceil(K / 32))``, float16. ``q4nl`` and ``q3nl`` have a third array: their scales are int8,
-127 to 127, in multiples of a float32 scale for each row ``(N,)``, which takes half of the bits. A
K that no 32 divides ends in a shorter group.

==========  ==============================================================================
format      a weight
==========  ==============================================================================
``float32`` IEEE single precision
``float16`` IEEE half precision
``q4mlc``   mlc-llm's 4 bits: ``w ~ (nibble - 7) * scale`` with nibbles 0 to 14
``q4nl``    4 bits, the index of one of 16 uneven levels: ``w ~ levels[index] * scale``
``q3nl``    3 bits, the index of one of 8 uneven levels
``q8``      8 bits, -127 to 127: ``w ~ integer * scale``
``q16``     16 bits, -8191 to 8191: ``w ~ integer * scale / 8192``
==========  ==============================================================================

Weights of a group are near zero more often than far from it, so that uneven levels lie closer to
each other there. Levels are integers within -16 to 16, and kernels look them up by a byte shuffle.
16 products of such a level and an activation come to 16 * 16 * 127 = 32,512 at most, which 16 bits
hold: kernels of CPUs that add products of bytes in 16 bits (AVX2) need no more instructions than
for even levels. A scale may be negative: the levels are not symmetric.

Where a scheme's activations are ``int8``, they are quantized while the model runs: each group of
32 of a row by ``scale = max|x| / 127`` in float32 and ``rint(x * (127 / max|x|))``; with ``int16``
8191 takes the place of 127. With 4 and 3 bits up to eight groups share a scale
(`fit_groups_per_scale`): relative to what those lose of a weight, the coarser activations do not
show. Products are summed exactly within a group, and groups in float32. 8191 is the largest number
of whose squares 32 fit into an int32; steps of 1/8191 of a group's largest magnitude are finer than
float16's for all weights above an eighth of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from mvlm.models.rounding import ROUNDINGS, Grid, Rounding
from mvlm.runtime.errors import CheckpointError, UsageError

GROUP_SIZE = 32
# The largest integers of symmetric quantization. 16-bit ones have 14 bits, so that 32 products of
# two such add up within 32.
QMAX = {"int8": 127, "int16": 8191}
# A vector whose largest magnitude is below this is quantized to zeros: its inverse scale would be
# infinite.
MIN_ABSMAX = 1e-30
# The largest magnitude of a level. Half of a group's products with activations fit into an int16.
MAX_LEVEL = 16
assert GROUP_SIZE // 2 * MAX_LEVEL * QMAX["int8"] <= np.iinfo(np.int16).max

Activations = Literal["float32", "int8", "int16"]


@dataclass(frozen=True)
class WeightFormat:
    """What the weights of a matrix are rounded to; the module's table has the meaning.

    Attributes:
        name: As kernels know it.
        dtype: Of a stored element of the layout ``rows``, which holds one weight or several.
        bits: Of a stored weight.
        zero_point: The stored integer that stands for zero.
        lowest: The least integer that a weight is rounded to; 0 for floats.
        highest: The greatest.
        levels: What stored integers stand for, ascending: they are indices of these. Empty where
            the stored integer is the zero point plus the one that it stands for.
        unit: What scales are multiples of: small where they would be too small for float16.
        scale_dtype: Of a group's scale: float16, or int8 where each row has a scale of its own.
    """

    name: str
    dtype: str
    bits: int
    zero_point: int = 0
    lowest: int = 0
    highest: int = 0
    levels: tuple[int, ...] = ()
    unit: float = 1.0
    scale_dtype: str = "float16"

    @property
    def has_row_scales(self) -> bool:
        """Whether scales are multiples of one scale for each row."""
        return self.scale_dtype == "int8"

    @property
    def is_integer(self) -> bool:
        """Whether a matrix is stored as integers with scales."""
        return self.highest > 0

    @cached_property
    def grid(self) -> Grid:
        """The integers that weights are rounded to, in units of their scales."""
        return Grid(self.lowest, self.highest, self.levels)

    @property
    def integer_dtype(self) -> str:
        """The dtype of `QuantizedMatrix.integers`."""
        if self.levels:
            return "uint8"
        return "int8" if self.bits <= 8 else "int16"

    @property
    def packing(self) -> int:
        """Weights that a stored element holds as a whole; 3-bit ones lie in three elements."""
        return 8 * np.dtype(self.dtype).itemsize // self.bits

    @property
    def integer_activations(self) -> Activations:
        """The dtype of the integers that its integers are multiplied with, where any are."""
        return "int16" if self.bits > 8 else "int8"

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight of a large matrix takes, its share of its group's scale included."""
        scale_bits = 8 * np.dtype(self.scale_dtype).itemsize
        return self.bits + scale_bits / GROUP_SIZE if self.is_integer else float(self.bits)

    def elements(self, width: int) -> int:
        """Stored elements along an axis of `width` weights: weights fill whole ones together."""
        element_bits = 8 * np.dtype(self.dtype).itemsize
        whole_bits = math.lcm(self.bits, element_bits)
        return -(-width * self.bits // whole_bits) * (whole_bits // element_bits)


def _format_of_levels(name: str, bits: int, levels: tuple[int, ...]) -> WeightFormat:
    """Return a format of uneven levels, whose scales are multiples of one for each row."""
    assert len(levels) == 1 << bits and levels == tuple(sorted(set(levels)))
    assert levels[0] >= -MAX_LEVEL and levels[-1] <= MAX_LEVEL
    zero, ends = levels.index(0), (levels[0], levels[-1])
    return WeightFormat(name, "uint32", bits, zero, *ends, levels, scale_dtype="int8")


FLOAT32 = WeightFormat("float32", "float32", 32)
FLOAT16 = WeightFormat("float16", "float16", 16)
Q4MLC = WeightFormat("q4mlc", "uint32", 4, zero_point=7, lowest=-7, highest=7)
Q4NL = _format_of_levels("q4nl", 4, (-16, -13, -10, -8, -6, -4, -2, -1, 0, 1, 3, 5, 7, 9, 12, 16))
Q3NL = _format_of_levels("q3nl", 3, (-16, -10, -6, -2, 0, 3, 7, 12))
Q8 = WeightFormat("q8", "int8", 8, lowest=-QMAX["int8"], highest=QMAX["int8"])
Q16 = WeightFormat(
    "q16", "int16", 16, lowest=-QMAX["int16"], highest=QMAX["int16"], unit=1 / (QMAX["int16"] + 1)
)
WEIGHT_FORMATS = {each.name: each for each in (FLOAT32, FLOAT16, Q4MLC, Q4NL, Q3NL, Q8, Q16)}


def format_named(name: str) -> WeightFormat:
    """Return the format that a signature names.

    Raises:
        ValueError: There is none: logs of earlier versions name formats that are gone.
    """
    if name not in WEIGHT_FORMATS:
        expected = [*WEIGHT_FORMATS]
        raise ValueError(f"{name[:40]!r} is no format of weights, expected one of {expected}")
    return WEIGHT_FORMATS[name]


@dataclass(frozen=True)
class Scheme:
    """How a part of the model is stored and computed.

    Attributes:
        name: The scheme's name on the command line.
        weights: How matrices are stored.
        activations: What they are multiplied with.
        rounding: How a scale is chosen for each group, unless the user says otherwise.
        groups_per_scale: How many groups of quantized activations share a scale, at most.
        vision: The scheme that goes with it for tower and projector, unless the user names one.
        embedding: The same for the embedding table; its own where this is None.
        head: The same for the output head.
        cache: How the KV cache is stored with it, unless the user says otherwise.
    """

    name: str
    weights: WeightFormat
    activations: Activations = "float32"
    rounding: Rounding = "nearest"
    groups_per_scale: int = 1
    vision: str = "q0f16"
    embedding: str | None = None
    head: str | None = None
    cache: str = "float16"


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f32", FLOAT32, vision="q0f32", cache="float32"),
        Scheme("q0f16", FLOAT16),
        Scheme("q16a16", Q16, "int16", vision="q16a16"),
        Scheme("q8a8", Q8, "int8", vision="q16a16", cache="int8"),
        # Rounded as mlc-llm rounds, so that both make the same file of a checkpoint.
        Scheme("q4f16_1", Q4MLC),
        Scheme("q4a8", Q4NL, "int8", "search", groups_per_scale=8, vision="q16a16", cache="int8"),
        Scheme(
            "q3a8",
            Q3NL,
            "int8",
            "search",
            groups_per_scale=8,
            vision="q16a16",
            embedding="q4a8",
            head="q4a8",
            cache="int8",
        ),
    )
}
DEFAULT_SCHEME = "q4a8"

# What keys and values may be stored as (see `models.cache_layout`).
CACHE_STORAGES = ("float32", "float16", "int8")


def find_scheme(name: str) -> Scheme:
    """Return the scheme of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in SCHEMES:
        raise UsageError(
            "unknown quantization",
            expected=" or ".join(SCHEMES),
            found=repr(name),
        )
    return SCHEMES[name]


def check_storage(storage: str) -> str:
    """Return the name of a storage.

    Raises:
        UsageError: It is unknown.
    """
    if storage not in CACHE_STORAGES:
        raise UsageError(
            "unknown storage of the KV cache",
            expected=" or ".join(CACHE_STORAGES),
            found=repr(storage),
        )
    return storage


@dataclass(frozen=True)
class Quantization:
    """How a model and its KV cache are stored; :func:`plan_quantization` makes it.

    Attributes:
        language: Of the decoder's layers.
        embedding: Of its embedding table.
        head: Of its output head.
        vision: Of tower and projector.
        cache: The storage of keys and values (see `models.cache_layout`).
    """

    language: Scheme
    embedding: Scheme
    head: Scheme
    vision: Scheme
    cache: str

    def names(self) -> dict[str, str]:
        """Return the names by part."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {part: getattr(chosen, "name", chosen) for part, chosen in parts.items()}


def plan_quantization(
    language: str = DEFAULT_SCHEME,
    *,
    embedding: str | None = None,
    head: str | None = None,
    vision: str | None = None,
    cache: str | None = None,
    rounding: str | None = None,
) -> Quantization:
    """Settle the schemes of all parts.

    Args:
        language: The scheme of the decoder's layers.
        embedding: Of the embedding table; what goes with `language` if None.
        head: Of the output head; what goes with `language` if None.
        vision: Of tower and projector; what goes with `language` if None.
        cache: The storage of the KV cache; what goes with `language` if None.
        rounding: How scales are chosen in all parts; each scheme's own way if None.

    Raises:
        UsageError: A name is unknown.
    """
    if rounding is not None and rounding not in ROUNDINGS:
        raise UsageError("unknown rounding", expected=" or ".join(ROUNDINGS), found=repr(rounding))

    def scheme(name: str) -> Scheme:
        found = find_scheme(name)
        return found if rounding is None else replace(found, rounding=cast(Rounding, rounding))

    layers = scheme(language)
    return Quantization(
        language=layers,
        embedding=scheme((layers.embedding or language) if embedding is None else embedding),
        head=scheme((layers.head or language) if head is None else head),
        vision=scheme(layers.vision if vision is None else vision),
        cache=check_storage(layers.cache if cache is None else cache),
    )


def to_float16(values: npt.NDArray[Any], source: str, fix: str) -> npt.NDArray[np.float16]:
    """Convert to float16, and refuse what it cannot hold.

    Args:
        values: Of any float type.
        source: What they are, for the message.
        fix: What to do about it.

    Raises:
        CheckpointError: A weight would become infinite.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise CheckpointError(
            f"weights of {source} do not fit into float16",
            expected=f"at most {np.finfo(np.float16).max:.0f}",
            found=f"{np.abs(values.astype(np.float32)).max():.0f}",
            fix=fix,
        )
    return half


_FLOAT16_STEPS = 1 << 11  # that float16 has between a power of two and the next


def has_halves(zero_point: int) -> bool:
    """Whether the halves of a group's zero-point correction fit into 16 bits each.

    A half is the zero point times the sum of 16 activations.
    """
    return 0 < zero_point <= MAX_LEVEL


def fit_groups_per_scale(groups: int, most: int) -> int:
    """Return how many of a row's groups share a scale: as many as divide them, at most `most`."""
    return max(count for count in range(1, most + 1) if groups % count == 0)


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix of an integer format, before a layout arranges it.

    Attributes:
        integers: ``(rows, K)``: indices of the format's levels (uint8), or integers without the
            zero point (int8, or int16 of a 16-bit format).
        scales: ``(rows, ceil(K / 32))``, of the format's `scale_dtype`.
        row_scales: ``(rows,)`` float32, where the format has them.
    """

    integers: npt.NDArray[Any]
    scales: npt.NDArray[Any]
    row_scales: npt.NDArray[np.float32] | None = None

    def rows(self, part: slice) -> QuantizedMatrix:
        """Return some rows."""
        rows = None if self.row_scales is None else self.row_scales[part]
        return QuantizedMatrix(self.integers[part], self.scales[part], rows)


def quantize(
    matrix: npt.NDArray[Any], weight_format: WeightFormat, rounding: Rounding = "nearest"
) -> QuantizedMatrix:
    """Quantize rows in groups of 32 along the last axis.

    What is computed on the way takes several times the matrix's memory: `WeightLayout.pack` gives
    some rows at a time.

    Args:
        matrix: ``(rows, K)``, finite, of any float type.
        weight_format: A format of integers.
        rounding: How the scales are chosen.
    """
    grouped = _grouped(matrix)
    with np.errstate(over="ignore"):  # a scale that overflows is clipped to the largest
        exact = ROUNDINGS[rounding](grouped, weight_format.grid)
        scales, row_scales = store_scales(exact, weight_format)
    return quantize_with_scales(matrix, scales, row_scales, weight_format)


def store_scales(
    exact: npt.NDArray[np.float32], weight_format: WeightFormat
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Round scales to a format's.

    Args:
        exact: ``(rows, groups)``.
        weight_format: A format of integers.

    Returns:
        The stored scales, and what they are multiples of in each row ``(rows,)``.
    """
    store = _as_multiples if weight_format.has_row_scales else _as_float16
    return store(exact / np.float32(weight_format.unit), weight_format)


def quantize_with_scales(
    matrix: npt.NDArray[Any],
    scales: npt.NDArray[Any],
    row_scales: npt.NDArray[np.float32],
    weight_format: WeightFormat,
) -> QuantizedMatrix:
    """Quantize rows by given scales: each weight to the nearest value.

    Args:
        matrix: ``(rows, K)``, finite, of any float type.
        scales: As :func:`store_scales` returns them.
        row_scales: The same.
        weight_format: A format of integers.
    """
    grouped, width = _grouped(matrix), matrix.shape[1]
    steps = scales.astype(np.float32) * row_scales[:, None]
    integers = _integers(grouped / steps[:, :, None], weight_format)
    return QuantizedMatrix(
        integers.reshape(len(matrix), -1)[:, :width],
        scales,
        row_scales if weight_format.has_row_scales else None,
    )


def _grouped(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a matrix in float32 as ``(rows, groups, 32)``, filled up with zeros."""
    rows, width = matrix.shape
    groups = -(-width // GROUP_SIZE)
    whole = np.zeros((rows, groups * GROUP_SIZE), np.float32)
    whole[:, :width] = matrix
    return whole.reshape(rows, groups, GROUP_SIZE)


def dequantize(quantized: QuantizedMatrix, weight_format: WeightFormat) -> npt.NDArray[np.float32]:
    """Return the weights ``(rows, K)`` that a quantized matrix stands for."""
    integers, scales = quantized.integers, quantized.scales
    if weight_format.levels:
        integers = np.array(weight_format.levels, np.float32)[integers]
    units = quantized.row_scales
    if units is None:
        units = np.full(len(scales), weight_format.unit, np.float32)
    steps = scales.astype(np.float32) * units[:, None]
    # Scales of a file may be infinite: packing the weights refuses the result.
    with np.errstate(over="ignore", invalid="ignore"):
        found: npt.NDArray[np.float32] = (
            integers.astype(np.float32)
            * np.repeat(steps, GROUP_SIZE, axis=1)[:, : integers.shape[1]]
        )
    return found


def nearest_values(
    values: npt.NDArray[np.float32], weight_format: WeightFormat
) -> npt.NDArray[np.float32]:
    """Round weights in units of their stored scales to what stored integers stand for."""
    integers = _integers(values, weight_format)
    if weight_format.levels:
        levels = np.array(weight_format.levels, np.float32)
        return np.take(levels, integers)
    values = integers.astype(np.float32)
    return values


def _integers(values: npt.NDArray[np.float32], weight_format: WeightFormat) -> npt.NDArray[Any]:
    """Round weights in units of their stored scales to a `QuantizedMatrix`'s integers."""
    if weight_format.levels:
        return weight_format.grid.indices(values)
    # The zero point is added before rounding, as mlc-llm does it: that decides ties.
    zero = weight_format.zero_point
    stored = np.rint(values + np.float32(zero))
    clipped = np.clip(stored, weight_format.lowest + zero, weight_format.highest + zero)
    found: npt.NDArray[Any] = (clipped - zero).astype(weight_format.integer_dtype)
    return found


def _as_multiples(
    exact: npt.NDArray[np.float32], weight_format: WeightFormat
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Store scales as multiples of one for each row, and return both.

    None becomes 0, lest a group whose weights are small beside the row's be lost as a whole.
    """
    reach = np.abs(exact).max(axis=1)
    most = np.float32(np.iinfo(weight_format.scale_dtype).max)
    row_scales = np.maximum(reach / most, np.finfo(np.float32).tiny)
    multiples = np.rint(exact / row_scales[:, None])
    ones = np.where(exact < 0, np.float32(-1), np.float32(1))
    return np.where(multiples == 0, ones, multiples).astype(np.int8), row_scales


def _as_float16(
    exact: npt.NDArray[np.float32], weight_format: WeightFormat
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    """Store scales in float16, and return them and what they are multiples of in each row."""
    # A scale beyond float16 would turn the group into infinities; the clip costs such a group
    # precision instead. A group of zeros gets scale 1, so that nothing divides by zero.
    largest = np.finfo(np.float16).max
    scales = np.clip(exact, -largest, largest).astype(np.float16)
    scales = np.where(scales == 0, np.float16(1), scales)
    if weight_format.highest > _FLOAT16_STEPS:
        # Rounded down it would clip the extreme: the levels are finer than the scale's own steps.
        larger = np.nextafter(scales, np.float16(np.inf))
        scales = np.where(scales < exact, np.minimum(larger, largest), scales)
    return scales, np.full(len(scales), weight_format.unit, np.float32)
