"""Quantization schemes: how matrices are stored, and with what activations they are multiplied.

A matrix of a linear layer arrives as ``(out_features, in_features)`` = ``(N, K)``, the checkpoint's
orientation, and is stored in the layout of the target's kernels (see `weight_layout`). An embedding
table keeps its ``(vocabulary, hidden)`` orientation, since one token reads one row; what is said of
K below holds for its second axis. Shapes are those of the layout ``rows``.

Integers come in groups of 32 along K that share a scale, so that a matrix is two arrays: the
integers, and scales ``(N, ceil(K / 32))``, float16. ``q4`` has a third: its scales are int8, -127
to 127, in multiples of a float32 scale for each row ``(N,)``, which takes half of the bits. A K
that no 32 divides ends in a shorter group.

==========  ==============================================================================
format      bits
==========  ==============================================================================
``float32`` IEEE single precision
``float16`` IEEE half precision
``q4mlc``   mlc-llm's: eight nibbles in a uint32, the lowest bits first, ``(N, ceil(K / 8))``;
            ``w ~ (nibble - 7) * scale`` with nibbles 0 to 14
``q4``      the same words; ``w ~ (nibble - 8) * scale`` with nibbles 0 to 15: one level more. The
            scale may be negative, so that the level without a mirror image, -8, serves whichever
            sign the group's extreme has
``q8``      one int8 a weight, ``(N, K)``, -127 to 127; ``w ~ integer * scale``
``q16``     one int16 a weight, ``(N, K)``, -8191 to 8191; ``w ~ integer * scale / 8192``
==========  ==============================================================================

Words that K does not fill end in nibbles that stand for zero.

Where a scheme's activations are ``int8``, they are quantized while the model runs: each group of
32 of a row by ``scale = max|x| / 127`` in float32 and ``rint(x * (127 / max|x|))``; with ``int16``
8191 takes the place of 127. With ``q4a8`` up to eight groups share a scale
(`fit_groups_per_scale`): relative to what 4 bits lose of a weight, the coarser activations do not
show. Products are summed exactly within a group, and groups in float32. 8191 is the largest number
of whose squares 32 fit into an int32; steps of 1/8191 of a group's largest magnitude are finer than
float16's for all weights above an eighth of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from mvlm.models.rounding import ROUNDINGS, Rounding
from mvlm.runtime.errors import CheckpointError, UsageError

GROUP_SIZE = 32
NIBBLES_PER_WORD = 8

# The largest integers of symmetric quantization. 16-bit ones have 14 bits, so that 32 products of
# two such add up within 32.
QMAX = {"int8": 127, "int16": 8191}
# A vector whose largest magnitude is below this is quantized to zeros: its inverse scale would be
# infinite.
MIN_ABSMAX = 1e-30

Activations = Literal["float32", "int8", "int16"]


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of a matrix are stored; the module's table has the bits.

    Attributes:
        name: As kernels know it.
        dtype: Of a stored element.
        packing: Weights in one element.
        zero_point: The stored integer that stands for zero.
        lowest: The least integer that is stored, the zero point subtracted; 0 for floats.
        highest: The greatest.
        unit: What scales are multiples of: small where they would be too small for float16.
        scale_dtype: Of a group's scale: float16, or int8 where each row has a scale of its own.
    """

    name: str
    dtype: str
    packing: int = 1
    zero_point: int = 0
    lowest: int = 0
    highest: int = 0
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

    @property
    def bits(self) -> int:
        """Bits of a stored weight."""
        return 8 * np.dtype(self.dtype).itemsize // self.packing

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
        """Stored elements along an axis of `width` weights."""
        return -(-width // self.packing)


FLOAT32 = WeightFormat("float32", "float32")
FLOAT16 = WeightFormat("float16", "float16")
Q4MLC = WeightFormat("q4mlc", "uint32", NIBBLES_PER_WORD, zero_point=7, lowest=-7, highest=7)
Q4 = WeightFormat(
    "q4", "uint32", NIBBLES_PER_WORD, zero_point=8, lowest=-8, highest=7, scale_dtype="int8"
)
Q8 = WeightFormat("q8", "int8", lowest=-QMAX["int8"], highest=QMAX["int8"])
Q16 = WeightFormat(
    "q16", "int16", lowest=-QMAX["int16"], highest=QMAX["int16"], unit=1 / (QMAX["int16"] + 1)
)
WEIGHT_FORMATS = {each.name: each for each in (FLOAT32, FLOAT16, Q4MLC, Q4, Q8, Q16)}


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
        cache: How the KV cache is stored with it, unless the user says otherwise.
    """

    name: str
    weights: WeightFormat
    activations: Activations = "float32"
    rounding: Rounding = "nearest"
    groups_per_scale: int = 1
    vision: str = "q0f16"
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
        Scheme("q4a8", Q4, "int8", "search", groups_per_scale=8, vision="q16a16", cache="int8"),
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
        embedding: Of the embedding table; the layers' if None.
        head: Of the output head; the layers' if None.
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
        embedding=layers if embedding is None else scheme(embedding),
        head=layers if head is None else scheme(head),
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
_BLOCK_VALUES = 1 << 18  # of a matrix that are quantized at once


def fit_groups_per_scale(groups: int, most: int) -> int:
    """Return how many of a row's groups share a scale: as many as divide them, at most `most`."""
    return max(count for count in range(1, most + 1) if groups % count == 0)


def quantize(
    matrix: npt.NDArray[Any], weight_format: WeightFormat, rounding: Rounding = "nearest"
) -> tuple[npt.NDArray[Any], ...]:
    """Quantize rows in groups of 32 along the last axis.

    Args:
        matrix: ``(rows, K)``, finite, of any float type.
        weight_format: A format of integers.
        rounding: How the scales are chosen.

    Returns:
        Elements ``(rows, ceil(K / packing))``, scales ``(rows, ceil(K / 32))`` and, where the
        format has them, the rows' scales ``(rows,)``.
    """
    rows, width = matrix.shape
    elements = np.empty((rows, weight_format.elements(width)), weight_format.dtype)
    scales = np.empty((rows, -(-width // GROUP_SIZE)), weight_format.scale_dtype)
    row_scales = np.empty(rows, np.float32)
    # Some rows at a time: what is computed on the way takes several times a matrix's memory, and
    # stays in the cache this way.
    step = max(1, _BLOCK_VALUES // width)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        elements[block], scales[block], row_scales[block] = _quantize_rows(
            matrix[block].astype(np.float32), weight_format, rounding
        )
    return (elements, scales, row_scales) if weight_format.has_row_scales else (elements, scales)


def _quantize_rows(
    matrix: npt.NDArray[np.float32], weight_format: WeightFormat, rounding: Rounding
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float32]]:
    rows, width = matrix.shape
    groups = -(-width // GROUP_SIZE)
    padded = np.zeros((rows, groups * GROUP_SIZE), np.float32)
    padded[:, :width] = matrix
    grouped = padded.reshape(rows, groups, GROUP_SIZE)

    store = _as_multiples if weight_format.has_row_scales else _as_float16
    with np.errstate(over="ignore"):  # a scale that overflows is clipped to the largest
        exact = (
            ROUNDINGS[rounding](grouped, weight_format.lowest, weight_format.highest)
            / weight_format.unit
        )
        scales, row_scales = store(exact, weight_format)
    # The zero point is added before rounding, as mlc-llm does it: that decides ties.
    zero = weight_format.zero_point
    steps = scales.astype(np.float32) * row_scales[:, None]
    quantized = np.rint(grouped / steps[:, :, None] + np.float32(zero))
    integers = np.clip(quantized, weight_format.lowest + zero, weight_format.highest + zero)
    packed = _packed(integers.reshape(rows, -1), weight_format)[:, : weight_format.elements(width)]
    return packed, scales, row_scales


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


def _packed(integers: npt.NDArray[np.float32], weight_format: WeightFormat) -> npt.NDArray[Any]:
    """Put integers into elements, the first into the lowest bits."""
    if weight_format.packing == 1:
        return integers.astype(weight_format.dtype)
    words = integers.astype(weight_format.dtype).reshape(len(integers), -1, weight_format.packing)
    packed: npt.NDArray[Any] = np.bitwise_or.reduce(words << _shifts(weight_format), axis=2)
    return packed


def dequantize(
    elements: npt.NDArray[Any],
    scales: npt.NDArray[Any],
    weight_format: WeightFormat,
    width: int,
    row_scales: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Undo :func:`quantize` up to rounding: ``(rows, width)`` in float32."""
    quantized = unpack(elements, weight_format)[:, :width].astype(np.float32)
    units = (
        np.full(len(scales), weight_format.unit, np.float32) if row_scales is None else row_scales
    )
    steps = scales.astype(np.float32) * units[:, None]
    # Scales of a file may be infinite: packing the weights refuses the result.
    with np.errstate(over="ignore", invalid="ignore"):
        return quantized * np.repeat(steps, GROUP_SIZE, axis=1)[:, :width]


def unpack(elements: npt.NDArray[Any], weight_format: WeightFormat) -> npt.NDArray[np.int32]:
    """Return the integers ``(rows, elements * packing)``, the zero point subtracted."""
    if weight_format.packing == 1:
        return elements.astype(np.int32) - weight_format.zero_point
    nibbles = (elements[:, :, None] >> _shifts(weight_format)) & np.uint32(15)
    return nibbles.reshape(len(elements), -1).astype(np.int32) - weight_format.zero_point


def _shifts(weight_format: WeightFormat) -> npt.NDArray[np.uint32]:
    return np.arange(weight_format.packing, dtype=np.uint32) * np.uint32(weight_format.bits)
