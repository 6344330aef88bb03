"""Dequantization of a stored matrix, as tensor expressions: the value of one weight."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import te, tirx

from mvlm.models.quantization import GROUP_SIZE, WeightFormat


def stored_value(
    weight_format: WeightFormat,
    arrays: Mapping[str, te.Tensor],
    at: tuple[tirx.Expr, ...],
    axis: int,
) -> tirx.Expr:
    """Return one weight as float32.

    Args:
        weight_format: How the weights are stored.
        arrays: The matrix's parameters by name (see `signatures.stored`).
        at: The weight's indices.
        axis: The one along which weights are grouped and packed.
    """
    if not weight_format.is_integer:
        return arrays["weight"][at].astype("float32")
    along = at[axis]

    def place(index: tirx.Expr) -> tuple[tirx.Expr, ...]:
        return (*at[:axis], index, *at[axis + 1 :])

    element = arrays["integers"][place(along // weight_format.packing)]
    if weight_format.packing > 1:
        bits = 32 // weight_format.packing
        shift = (along % weight_format.packing * bits).astype("uint32")
        element = (element >> shift) & tirx.const((1 << bits) - 1, "uint32")
    quantized = element.astype("float32")
    if weight_format.zero_point:
        quantized = quantized - float(weight_format.zero_point)
    scale = arrays["scales"][place(along // GROUP_SIZE)].astype("float32")
    if weight_format.has_row_scales:
        others = (*at[:axis], *at[axis + 1 :])
        return quantized * (scale * arrays["row_scales"][others])
    return quantized * (scale if weight_format.unit == 1 else scale * weight_format.unit)
