"""A kernel task's workload: its operation's signature, as a module for MetaSchedule's database.

A kernel is built from an operation's attributes and its parameters' shapes and dtypes alone. So the
workload is a function with those and an empty body: rewording a definition does not invalidate a
log, and a log stays small. Dynamic extents get a representative value; the kernel that is measured
serves all values.
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import s_tir, tirx

# Rows of a prompt's chunk, and pages of a KV cache of 256 positions.
ROWS, PAGES = 256, 4
_SIGNATURE = "mvlm.signature"
_EXTENTS = {"span": PAGES, "pages": PAGES}


def workload_of(
    definition: tirx.PrimFunc, extents: Mapping[str, int] | None = None
) -> tirx.PrimFunc:
    """Return the signature of a definition, all of its extents known.

    Args:
        definition: The operation.
        extents: Values for its symbolic extents by name; by default those of the module, and
            `ROWS` for all others.
    """
    values, bound = {**_EXTENTS, **(extents or {})}, {}
    for parameter in definition.params:
        shape = [_known(extent, values) for extent in parameter.ty.shape]
        if any(isinstance(extent, tvm.ir.Var) for extent in parameter.ty.shape):
            bound[parameter] = tirx.decl_buffer(shape, str(parameter.ty.dtype), parameter.name)
    specialized = definition.specialize(bound) if bound else definition
    empty = s_tir.SBlock([], [], [], "root", tirx.Evaluate(0))
    body = s_tir.SBlockRealize([], True, empty)
    attributes = {key: value for key, value in definition.attrs.items() if key.startswith("mvlm.")}
    signature = tirx.PrimFunc(specialized.params, body, specialized.ret_type)
    return signature.with_attrs({**attributes, _SIGNATURE: True, "global_symbol": "main"})


def module_of(workload: tirx.PrimFunc) -> tvm.IRModule:
    """Return a workload as a database's module."""
    return tvm.IRModule({"main": workload})


def is_signature(module: tvm.IRModule) -> bool:
    """Whether a module is the workload of one of our kernels, not an extracted task's."""
    return _SIGNATURE in (module["main"].attrs or {})


def _known(extent: object, values: Mapping[str, int]) -> object:
    if isinstance(extent, tvm.ir.Var):
        return tirx.IntImm("int64", values.get(extent.name, ROWS))
    return extent
