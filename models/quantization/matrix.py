"""Quantizes matrices, and returns what quantized ones stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization.formats import GROUP_SIZE, TABLE_ROWS, WeightFormat
from mvlm.models.quantization.group_scales import read_offsets, read_scales
from mvlm.models.quantization.table_search import TableScales, find_table_scales
from mvlm.models.rounding import ROUNDINGS, Rounding
from mvlm.runtime.errors import CheckpointError

_FLOAT16_STEPS = 1 << 11  # that float16 has between a power of two and the next


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix of an integer format, before a layout arranges it.

    Attributes:
        integers: ``(rows, K)``: indices of levels (uint8), or integers without the zero point
            (int8, or int16 of a 16-bit format).
        scales: ``(rows, ceil(K / 32))``, of the format's `scale_dtype`.
        row_scales: ``(rows,)`` float32, of a format with tables.
        levels: ``(ceil(rows / 16), 16)`` int8, of a format with tables: the levels of each 16
            rows; those of a table of 8 twice.
    """

    integers: npt.NDArray[Any]
    scales: npt.NDArray[Any]
    row_scales: npt.NDArray[np.float32] | None = None
    levels: npt.NDArray[np.int8] | None = None

    def rows(self, part: slice) -> QuantizedMatrix:
        """Return some rows; of a format with tables from a multiple of 16 on."""
        if self.row_scales is None or self.levels is None:
            return QuantizedMatrix(self.integers[part], self.scales[part])
        start, stop, _ = part.indices(len(self.integers))
        assert start % TABLE_ROWS == 0
        levels = self.levels[start // TABLE_ROWS : -(-stop // TABLE_ROWS)]
        return QuantizedMatrix(
            self.integers[part], self.scales[part], self.row_scales[part], levels
        )


def concatenate(parts: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
    """Join the rows of matrices of one format; with tables all but the last have whole 16 rows."""
    rows = [part.row_scales for part in parts if part.row_scales is not None]
    levels = [part.levels for part in parts if part.levels is not None]
    return QuantizedMatrix(
        np.concatenate([part.integers for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate(rows) if rows else None,
        np.concatenate(levels) if levels else None,
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
    if weight_format.has_tables:
        return round_to_tables(
            matrix, find_table_scales(matrix, weight_format, rounding), weight_format
        )
    grouped = _grouped(matrix)
    with np.errstate(over="ignore"):  # a scale that overflows is clipped to the largest
        exact = ROUNDINGS[rounding](grouped, weight_format.grid)
        scales = store_scales(exact, weight_format)
    return quantize_with_scales(matrix, scales, weight_format)


def store_scales(
    exact: npt.NDArray[np.float32], weight_format: WeightFormat
) -> npt.NDArray[np.float16]:
    """Round scales ``(rows, groups)`` to those of a format of integers without tables."""
    # A scale beyond float16 would turn the group into infinities; the clip costs such a group
    # precision instead. A group of zeros gets scale 1, so that nothing divides by zero.
    relative, largest = exact / np.float32(weight_format.unit), np.finfo(np.float16).max
    scales = np.clip(relative, -largest, largest).astype(np.float16)
    scales = np.where(scales == 0, np.float16(1), scales)
    if weight_format.highest > _FLOAT16_STEPS:
        # Rounded down it would clip the extreme: the levels are finer than the scale's own steps.
        larger = np.nextafter(scales, np.float16(np.inf))
        scales = np.where(scales < relative, np.minimum(larger, largest), scales)
    return scales


def quantize_with_scales(
    matrix: npt.NDArray[Any], scales: npt.NDArray[np.float16], weight_format: WeightFormat
) -> QuantizedMatrix:
    """Quantize rows by given scales: each weight to the nearest value.

    Args:
        matrix: ``(rows, K)``, finite, of any float type.
        scales: As :func:`store_scales` returns them.
        weight_format: A format of integers without tables.
    """
    grouped, width = _grouped(matrix), matrix.shape[1]
    steps = scales.astype(np.float32) * np.float32(weight_format.unit)
    integers = _integers(grouped / steps[:, :, None], weight_format)
    return QuantizedMatrix(integers.reshape(len(matrix), -1)[:, :width], scales)


def round_to_tables(
    matrix: npt.NDArray[Any], scales: TableScales, weight_format: WeightFormat
) -> QuantizedMatrix:
    """Quantize rows by given scales, offsets and tables: each weight to the nearest level.

    Args:
        matrix: ``(rows, K)``, finite, of any float type.
        scales: Of its groups.
        weight_format: One with tables.
    """
    rows, width = matrix.shape
    steps = read_scales(scales.stored) * scales.row_scales[:, None]
    steps = np.repeat(steps, GROUP_SIZE, axis=1)[:, :width]
    # Any level does in a group of zeros: its scale is 0.
    values = np.zeros((rows, width), np.float32)
    np.divide(matrix, steps, out=values, where=steps > 0, casting="same_kind")
    values -= np.repeat(read_offsets(scales.stored), GROUP_SIZE, axis=1)[:, :width]
    integers = np.empty((rows, width), np.uint8)
    for table, grid in enumerate(weight_format.grids):
        some = scales.tables == table
        integers[some] = grid.indices(values[some])
    return join_indices(integers, scales, weight_format)


def join_indices(
    indices: npt.NDArray[np.uint8], scales: TableScales, weight_format: WeightFormat
) -> QuantizedMatrix:
    """Return the matrix of indices of levels ``(rows, K)`` with what they were rounded by."""
    levels = weight_format.stored_levels[scales.tables[::TABLE_ROWS]]
    return QuantizedMatrix(indices, scales.stored, scales.row_scales, levels)


def _grouped(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a matrix in float32 as ``(rows, groups, 32)``, filled up with zeros."""
    rows, width = matrix.shape
    groups = -(-width // GROUP_SIZE)
    whole = np.zeros((rows, groups * GROUP_SIZE), np.float32)
    whole[:, :width] = matrix
    return whole.reshape(rows, groups, GROUP_SIZE)


def dequantize(quantized: QuantizedMatrix, weight_format: WeightFormat) -> npt.NDArray[np.float32]:
    """Return the weights ``(rows, K)`` that a quantized matrix stands for."""
    integers, scales, width = quantized.integers, quantized.scales, quantized.integers.shape[1]
    if quantized.row_scales is not None and quantized.levels is not None:
        tables = np.repeat(quantized.levels, TABLE_ROWS, axis=0)[: len(integers)]
        levels = np.take_along_axis(tables, integers.astype(np.intp), axis=1).astype(np.float32)
        values = levels + np.repeat(read_offsets(scales), GROUP_SIZE, axis=1)[:, :width]
        steps = read_scales(scales) * quantized.row_scales[:, None]
    else:
        values = integers.astype(np.float32)
        steps = scales.astype(np.float32) * np.float32(weight_format.unit)
    # Scales of a file may be infinite: packing the weights refuses the result.
    with np.errstate(over="ignore", invalid="ignore"):
        found: npt.NDArray[np.float32] = values * np.repeat(steps, GROUP_SIZE, axis=1)[:, :width]
    return found


def nearest_values(
    values: npt.NDArray[np.float32], weight_format: WeightFormat
) -> npt.NDArray[np.float32]:
    """Round weights in units of their stored scales to integers, of a format without tables."""
    return _integers(values, weight_format).astype(np.float32)


def _integers(values: npt.NDArray[np.float32], weight_format: WeightFormat) -> npt.NDArray[Any]:
    """Round weights in units of their stored scales to a `QuantizedMatrix`'s integers."""
    # The zero point is added before rounding, as mlc-llm does it: that decides ties.
    zero = weight_format.zero_point
    stored = np.rint(values + np.float32(zero))
    clipped = np.clip(stored, weight_format.lowest + zero, weight_format.highest + zero)
    found: npt.NDArray[Any] = (clipped - zero).astype(weight_format.integer_dtype)
    return found


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
