"""Shapes and dtypes of the parameters of a TensorIR function that has no signature."""

from __future__ import annotations

from typing import Any

from tvm import tirx


def parameter_types(function: tirx.PrimFunc) -> list[Any]:
    """Return the buffer type of every parameter: inputs first, the output last."""
    return [parameter.ty for parameter in function.params]


def extents(buffer: Any) -> tuple[int, ...]:
    """Return a buffer type's shape, all of whose extents are known."""
    return tuple(int(extent) for extent in buffer.shape)


def has_single_row(function: tirx.PrimFunc) -> bool:
    """Whether the first extent of a function's first parameter is known to be one."""
    shape: Any = getattr(parameter_types(function)[0], "shape", ())
    return len(shape) > 0 and isinstance(shape[0], int | tirx.IntImm) and int(shape[0]) == 1
