"""Shapes and dtypes of a definition's parameters, which kernels are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def keep_parameters(kernel: tirx.PrimFunc, kept: Sequence[bool]) -> tirx.PrimFunc:
    """Remove the parameters that a kernel never reads or writes.

    A kernel is written once with all optional parameters; a definition may have fewer.
    """
    parameters = [p for p, keep in zip(kernel.params, kept, strict=True) if keep]
    return tirx.PrimFunc(parameters, kernel.body, kernel.ret_type, kernel.attrs)


def attribute(definition: tirx.PrimFunc, name: str, default: Any) -> Any:
    """Return an attribute of the operation, of its default's type."""
    return type(default)(definition.attrs.get(f"mvlm.{name}", default))


@dataclass(frozen=True)
class CacheTypes:
    """Shapes and dtype of an operation on the KV cache.

    Attributes:
        is_single_row: Whether there is only one new position.
        heads: Query heads.
        kv_heads: Heads of keys and values.
        head_dim: Channels of a head.
        page_size: Positions of a page.
        storage: The dtype of keys and values.
    """

    is_single_row: bool
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    storage: str

    @property
    def has_scales(self) -> bool:
        """Whether keys and values are integers, whose scales are the parameter after the values."""
        return self.storage == "int8"


def cache_types(definition: tirx.PrimFunc) -> CacheTypes:
    """Read the parameters of an operation on the KV cache."""
    qkv, _, _, _, _, keys, *_ = parameter_types(definition)
    kv_heads, head_dim, page_size = (int(extent) for extent in keys.shape[1:])
    return CacheTypes(
        is_single_row=is_single_row(qkv),
        heads=int(qkv.shape[1]) - 2 * kv_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        page_size=page_size,
        storage=str(keys.dtype),
    )
