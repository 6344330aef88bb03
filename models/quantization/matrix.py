"""Quantizes matrices, and returns what quantized ones stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization.formats import GROUP_SIZE, WeightFormat
from mvlm.models.rounding import ROUNDINGS, Rounding
from mvlm.runtime.errors import CheckpointError

_FLOAT16_STEPS = 1 << 11  # that float16 has between a power of two and the next


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


def concatenate(parts: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
    """Join the rows of matrices of one format."""
    rows = [part.row_scales for part in parts if part.row_scales is not None]
    return QuantizedMatrix(
        np.concatenate([part.integers for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate(rows) if rows else None,
    )


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
    if weight_format.has_row_scales:
        most = np.float32(np.iinfo(weight_format.scale_dtype).max)
        row_scales = np.maximum(np.abs(exact).max(axis=1) / most, np.finfo(np.float32).tiny)
    else:
        row_scales = np.full(len(exact), weight_format.unit, np.float32)
    return store_scales_of_rows(exact, row_scales, weight_format), row_scales


def store_scales_of_rows(
    exact: npt.NDArray[np.float32],
    row_scales: npt.NDArray[np.float32],
    weight_format: WeightFormat,
) -> npt.NDArray[Any]:
    """Round scales to a format's where those that they are multiples of are settled.

    Args:
        exact: ``(rows, groups)``.
        row_scales: ``(rows,)``, as :func:`store_scales` returns them.
        weight_format: A format of integers.
    """
    relative = exact / row_scales[:, None]
    return (_multiples if weight_format.has_row_scales else _float16)(relative, weight_format)


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


def _multiples(
    relative: npt.NDArray[np.float32], weight_format: WeightFormat
) -> npt.NDArray[np.int8]:
    """Round scales in units of their row's.

    None becomes 0, lest a group whose weights are small beside the row's be lost as a whole.
    """
    most = np.iinfo(weight_format.scale_dtype).max
    multiples = np.clip(np.rint(relative), -most, most)
    ones = np.where(relative < 0, np.float32(-1), np.float32(1))
    return np.where(multiples == 0, ones, multiples).astype(np.int8)


def _float16(
    exact: npt.NDArray[np.float32], weight_format: WeightFormat
) -> npt.NDArray[np.float16]:
    # A scale beyond float16 would turn the group into infinities; the clip costs such a group
    # precision instead. A group of zeros gets scale 1, so that nothing divides by zero.
    largest = np.finfo(np.float16).max
    scales = np.clip(exact, -largest, largest).astype(np.float16)
    scales = np.where(scales == 0, np.float16(1), scales)
    if weight_format.highest > _FLOAT16_STEPS:
        # Rounded down it would clip the extreme: the levels are finer than the scale's own steps.
        larger = np.nextafter(scales, np.float16(np.inf))
        scales = np.where(scales < exact, np.minimum(larger, largest), scales)
    return scales


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
