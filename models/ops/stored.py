"""What a stored matrix means: the value of a weight, read from integers and scales or a float."""

from __future__ import annotations

from tvm import te, tirx

from mvlm.models.quantization import GROUP_SIZE, Storage


def attributes(storage: Storage) -> dict[str, int | str]:
    """Return the attributes by which a kernel knows the storage of a definition's matrix."""
    if not storage.is_integer:
        return {"storage": storage.name}
    packing, zero_point = storage.packing, storage.zero_point
    return {"storage": storage.name, "packing": packing, "zero_point": zero_point}


def stored_placeholders(
    storage: Storage, shape: tuple[int, ...], axis: int
) -> tuple[te.Tensor, ...]:
    """Return the arrays that a matrix is stored in.

    Args:
        storage: How.
        shape: Of the weights.
        axis: The one along which weights are grouped and packed.
    """
    if not storage.is_integer:
        return (te.placeholder(shape, storage.dtype, name="weight"),)
    elements, groups = list(shape), list(shape)
    elements[axis] = storage.elements(shape[axis])
    groups[axis] = -(-shape[axis] // GROUP_SIZE)
    arrays = [
        te.placeholder(elements, storage.dtype, name="integers"),
        te.placeholder(groups, storage.scale_dtype, name="scales"),
    ]
    if storage.has_row_scales:
        others = (*shape[:axis], *shape[axis + 1 :])
        arrays.append(te.placeholder(others, "float32", name="row_scales"))
    return tuple(arrays)


def stored_value(
    storage: Storage,
    arrays: tuple[te.Tensor, ...],
    at: tuple[tirx.Expr, ...],
    axis: int,
) -> tirx.Expr:
    """Return one weight as float32; arguments as :func:`stored_placeholders`, and its place."""
    if not storage.is_integer:
        return arrays[0][at].astype("float32")
    along = at[axis]

    def place(index: tirx.Expr) -> tuple[tirx.Expr, ...]:
        return (*at[:axis], index, *at[axis + 1 :])

    element = arrays[0][place(along // storage.packing)]
    if storage.packing > 1:
        bits = 32 // storage.packing
        shift = (along % storage.packing * bits).astype("uint32")
        element = (element >> shift) & tirx.const((1 << bits) - 1, "uint32")
    level = element.astype("float32")
    if storage.zero_point:
        level = level - float(storage.zero_point)
    scale = arrays[1][place(along // GROUP_SIZE)].astype("float32")
    if storage.has_row_scales:
        others = (*at[:axis], *at[axis + 1 :])
        return level * (scale * arrays[2][others])
    return level * (scale if storage.unit == 1 else scale * storage.unit)
