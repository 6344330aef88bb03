"""What a definition's parameters are: their shapes and dtypes, for the kernels built for them."""

from __future__ import annotations

from typing import Any

from tvm import tirx


def parameter_types(definition: tirx.PrimFunc) -> list[Any]:
    """Return the buffer type of every parameter: inputs first, the output last."""
    return [parameter.ty for parameter in definition.params]


def extents(buffer: Any) -> tuple[int, ...]:
    """Return a buffer type's shape, all of whose extents are known."""
    return tuple(int(extent) for extent in buffer.shape)


def is_single_row(buffer: Any) -> bool:
    """Whether a buffer type's first extent is known to be one."""
    first = buffer.shape[0]
    return isinstance(first, int | tirx.IntImm) and int(first) == 1
