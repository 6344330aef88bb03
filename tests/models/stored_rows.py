"""Matrices as the layout `rows` stores them, and what is stored read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.bit_packing import unpack_rows
from mvlm.models.quantization import QuantizedMatrix, WeightFormat, dequantize
from mvlm.models.rounding import Rounding
from mvlm.models.weight_layout import ROWS, Matrix

Array = npt.NDArray[Any]


def stored_rows(
    matrix: Array, weight_format: WeightFormat, rounding: Rounding = "nearest"
) -> tuple[Array, ...]:
    """Round a matrix, and return its arrays."""
    rows, width = matrix.shape
    return ROWS.pack(matrix, Matrix(rows, width, weight_format), rounding)


def read_rows(
    elements: Array, scales: Array, weight_format: WeightFormat, width: int, *tables: Array
) -> npt.NDArray[np.float32]:
    """Return the weights that arrays stand for; with tables the last two are scales and levels."""
    stored = unpack_rows(elements, weight_format, width)
    integers = stored.astype(np.int64) - weight_format.zero_point
    return dequantize(QuantizedMatrix(integers, scales, *tables), weight_format)


def multiples(quantized: QuantizedMatrix) -> tuple[Array, Array]:
    """What is stored, one weight at a time, as float64: ``(N, K)`` weights in units of their steps,
    and the steps ``(N, groups)`` in units of the rows' scales.
    """
    integers, scales = quantized.integers, quantized.scales
    if quantized.levels is None:
        return integers.astype(np.float64), scales.astype(np.float64)
    values = np.empty(integers.shape)
    for n, k in np.ndindex(*integers.shape):
        level = int(quantized.levels[n // 16, integers[n, k]])
        values[n, k] = level + 0.75 * (int(scales[n, k // 32]) // 32)
    return values, (scales % 32).astype(np.float64)
