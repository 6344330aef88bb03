"""Dequantization of a stored matrix, as tensor expressions: the value of one weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import tirx

from mvlm.models.quantization import GROUP_SIZE
from mvlm.models.weight_layout import Matrix, WeightLayout


def quantized_value(
    layout: WeightLayout,
    matrix: Matrix,
    arrays: Mapping[str, Any],
    feature: tirx.Expr,
    k: tirx.Expr,
    dtype: str = "float32",
) -> tirx.Expr:
    """Return a weight without its scale: of a float format, the weight itself.

    Args:
        layout: Of the matrix.
        matrix: What it is.
        arrays: Its parameters by name, as tensors or as buffers.
        feature: The weight's row in the matrix.
        k: Its column.
        dtype: Of the result.
    """
    place, weight_format = layout.element(matrix, feature, k), matrix.weight_format
    element = arrays["weight"][place.index]
    if place.shift is not None:
        _, stored = layout.arrays(matrix)["weight"]
        mask = tirx.const((1 << weight_format.bits) - 1, stored)
        element = (element >> place.shift.astype(stored)) & mask
    quantized = element.astype(dtype)
    zero = layout.zero_point(weight_format, matrix.activations)
    return quantized - tirx.const(zero, dtype) if zero else quantized


def stored_value(
    layout: WeightLayout,
    matrix: Matrix,
    arrays: Mapping[str, Any],
    feature: tirx.Expr,
    k: tirx.Expr,
) -> tirx.Expr:
    """Return a weight as float32; see :func:`quantized_value`."""
    quantized = quantized_value(layout, matrix, arrays, feature, k)
    weight_format = matrix.weight_format
    if not weight_format.is_integer:
        return quantized
    scale = arrays["scales"][layout.scale(matrix, feature, k // GROUP_SIZE)].astype("float32")
    if weight_format.has_row_scales:
        return quantized * (scale * arrays["row_scales"][layout.row_scale(matrix, feature)])
    return quantized * (scale if weight_format.unit == 1 else scale * weight_format.unit)
