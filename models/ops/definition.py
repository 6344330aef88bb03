"""Marks a TensorIR function as an operation that a kernel may replace."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tvm import te, tirx

OP_ATTRIBUTE = "mvlm.op"

# Relax's TOpPatternKind: an opaque function is never fused with its neighbours.
_OPAQUE = 8


def define(name: str, arguments: list[te.Tensor], **attributes: int | str | float) -> tirx.PrimFunc:
    """Make the operation `name` of tensor expressions: inputs first, the output last."""
    # Private, so that the module names it and definitions of many shapes live side by side.
    return mark(te.create_prim_func(arguments).without_attr("global_symbol"), name, **attributes)


def mark(function: tirx.PrimFunc, name: str, **attributes: int | str | float) -> tirx.PrimFunc:
    """Mark a function as the operation `name`."""
    marks: dict[str, Any] = {OP_ATTRIBUTE: name, "op_pattern": _OPAQUE}
    marks |= {f"mvlm.{key}": value for key, value in attributes.items()}
    return function.with_attrs(marks)


def without_parameters(function: tirx.PrimFunc, left_out: Collection[int]) -> tirx.PrimFunc:
    """Remove parameters that a function neither reads nor writes.

    TVMScript has no optional parameters: such a function is written with all that it may take.

    Args:
        function: The function.
        left_out: The places of the parameters among all.
    """
    kept = [each for place, each in enumerate(function.params) if place not in left_out]
    return tirx.PrimFunc(kept, function.body, function.ret_type, function.attrs)


def row_count(rows: object) -> int | tirx.Var:
    """Return a row count to define an operation with: a number, or a variable of its own."""
    return rows if isinstance(rows, int) else tirx.Var("rows", "int64")
