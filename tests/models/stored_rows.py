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
    elements: Array,
    scales: Array,
    weight_format: WeightFormat,
    width: int,
    row_scales: Array | None = None,
) -> npt.NDArray[np.float32]:
    """Return the weights that arrays stand for."""
    stored = unpack_rows(elements, weight_format, width)
    zero = 0 if weight_format.levels else weight_format.zero_point
    integers = stored.astype(np.int64) - zero
    return dequantize(QuantizedMatrix(integers, scales, row_scales), weight_format)
