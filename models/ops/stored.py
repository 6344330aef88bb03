"""Dequantization of a stored matrix, as tensor expressions: the value of one weight."""

from __future__ import annotations

from tvm import te, tirx

from mvlm.models.quantization import GROUP_SIZE, WeightFormat


def attributes(weight_format: WeightFormat) -> dict[str, int | str]:
    """Return the attributes by which a kernel knows the format of a definition's matrix."""
    if not weight_format.is_integer:
        return {"storage": weight_format.name}
    packing, zero_point = weight_format.packing, weight_format.zero_point
    return {"storage": weight_format.name, "packing": packing, "zero_point": zero_point}


def stored_placeholders(
    weight_format: WeightFormat, shape: tuple[int, ...], axis: int
) -> tuple[te.Tensor, ...]:
    """Return the arrays that a matrix is stored in.

    Args:
        weight_format: How the weights are stored.
        shape: Of the weights.
        axis: The one along which weights are grouped and packed.
    """
    if not weight_format.is_integer:
        return (te.placeholder(shape, weight_format.dtype, name="weight"),)
    elements, groups = list(shape), list(shape)
    elements[axis] = weight_format.elements(shape[axis])
    groups[axis] = -(-shape[axis] // GROUP_SIZE)
    arrays = [
        te.placeholder(elements, weight_format.dtype, name="integers"),
        te.placeholder(groups, weight_format.scale_dtype, name="scales"),
    ]
    if weight_format.has_row_scales:
        others = (*shape[:axis], *shape[axis + 1 :])
        arrays.append(te.placeholder(others, "float32", name="row_scales"))
    return tuple(arrays)


def stored_value(
    weight_format: WeightFormat,
    arrays: tuple[te.Tensor, ...],
    at: tuple[tirx.Expr, ...],
    axis: int,
) -> tirx.Expr:
    """Return one weight as float32; arguments as :func:`stored_placeholders`, and its place."""
    if not weight_format.is_integer:
        return arrays[0][at].astype("float32")
    along = at[axis]

    def place(index: tirx.Expr) -> tuple[tirx.Expr, ...]:
        return (*at[:axis], index, *at[axis + 1 :])

    element = arrays[0][place(along // weight_format.packing)]
    if weight_format.packing > 1:
        bits = 32 // weight_format.packing
        shift = (along % weight_format.packing * bits).astype("uint32")
        element = (element >> shift) & tirx.const((1 << bits) - 1, "uint32")
    quantized = element.astype("float32")
    if weight_format.zero_point:
        quantized = quantized - float(weight_format.zero_point)
    scale = arrays[1][place(along // GROUP_SIZE)].astype("float32")
    if weight_format.has_row_scales:
        others = (*at[:axis], *at[axis + 1 :])
        return quantized * (scale * arrays[2][others])
    return quantized * (scale if weight_format.unit == 1 else scale * weight_format.unit)
