"""The memory traffic of each function's kernels, counted from the shapes of their arguments.

An array counts whole, except that of an embedding table only the rows looked up count, and of the
KV cache the bytes of one position. A row of a table that is the output head as well counts as its
panel: each of the panel's cache lines holds some of it. An argument that a kernel changes in place
counts as written, not as read. The cache's page table, 4 bytes for 64 positions, is left out, and
so is an array whose size is neither fixed nor linear in the rows: no function of ours has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.sym.pattern import detect_linear_equation

from mvlm.models.cache_layout import PAGE_SIZE
from mvlm.models.kv_cache import NUM_BLOCKS, PAGES, RUN_EDGES
from mvlm.models.ops.signatures import EmbeddingSignature, read_signature
from mvlm.runtime.artifact.kernels import KernelTraffic, total_traffic
from mvlm.runtime.artifact.layout import whole_function


@dataclass(frozen=True)
class _Size:
    """Bytes of an array: a fixed part, a part for each row, and one for each cache position."""

    fixed: int = 0
    per_row: int = 0
    per_position: int = 0


def count_kernel_traffic(module: tvm.IRModule) -> dict[str, dict[str, KernelTraffic]]:
    """Count how often every function calls each TensorIR function, and what that moves.

    Args:
        module: Relax functions that only call TensorIR functions. Their parameters, as `nn.Module`
            exports them, come after their ``num_input`` inputs. Parts of the vision tower count as
            one function.
    """
    functions: dict[str, dict[str, KernelTraffic]] = {}
    for variable, function in module.functions_items():
        if isinstance(function, relax.Function):
            _add_traffic(
                functions.setdefault(whole_function(variable.name_hint), {}), module, function
            )
    return {name: dict(sorted(traffic.items())) for name, traffic in sorted(functions.items())}


def _add_traffic(
    traffic: dict[str, KernelTraffic], module: tvm.IRModule, function: relax.Function
) -> None:
    origins = _Origins(function)

    def visit(expression: Any) -> None:
        if not isinstance(expression, relax.Call) or not len(expression.args):
            return
        callee = expression.args[0]
        if isinstance(callee, tvm.ir.GlobalVar) and isinstance(module[callee], tirx.PrimFunc):
            name, is_lookup = callee.name_hint, _is_lookup(module[callee])
            traffic[name] = traffic.get(name, KernelTraffic()) + _call_traffic(
                expression, is_lookup, origins
            )

    relax.analysis.post_order_visit(function.body, visit)


class _Origins:
    """Tells a function's parameters from the other arguments of its calls.

    Args:
        function: The function.
    """

    def __init__(self, function: relax.Function) -> None:
        attributes = function.attrs or {}
        inputs = int(attributes.get("num_input", len(function.params)))
        self._parameters = function.params[inputs:]
        self._values = relax.analysis.get_var2val(function)

    def is_parameter(self, expression: Any) -> bool:
        """Whether an array is one, or a view of one."""
        while not isinstance(expression, relax.Var) or expression in self._values:
            if isinstance(expression, relax.Var):
                expression = self._values[expression]
            elif isinstance(expression, relax.TupleGetItem):
                expression = expression.tuple_value
            elif _is_view(expression):
                expression = expression.args[0]
            else:
                return False
        return any(expression.same_as(parameter) for parameter in self._parameters)


def _is_view(expression: Any) -> bool:
    return isinstance(expression, relax.Call) and expression.op == tvm.ir.Op.get("relax.reshape")


def _is_lookup(kernel: tirx.PrimFunc) -> bool:
    return isinstance(read_signature(kernel), EmbeddingSignature)


def _call_traffic(call: relax.Call, is_lookup: bool, origins: _Origins) -> KernelTraffic:
    arguments = call.args[1].fields
    traffic = [KernelTraffic(calls=1)]
    for index, argument in enumerate(arguments):
        if index in _changed(call):
            continue
        if not origins.is_parameter(argument):
            traffic.append(_read(_size(argument.ty)))
        elif is_lookup:
            traffic.append(_looked_up(argument.ty, arguments[0].ty))
        else:
            size = _size(argument.ty)
            traffic.append(
                KernelTraffic(weight_bytes=size.fixed, weight_bytes_per_row=size.per_row)
            )
    outs = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
    return total_traffic([*traffic, *(_written(_size(out)) for out in outs)])


def _changed(call: relax.Call) -> set[int]:
    """Return the indices of the arguments that a call changes in place."""
    if call.op != tvm.ir.Op.get("relax.call_tir_inplace"):
        return set()
    return {int(index) for index in call.attrs.inplace_indices}


def _read(size: _Size) -> KernelTraffic:
    return KernelTraffic(
        read_bytes=size.fixed,
        read_bytes_per_row=size.per_row,
        cache_read_bytes_per_position=size.per_position,
    )


def _written(size: _Size) -> KernelTraffic:
    return KernelTraffic(
        written_bytes=size.fixed,
        written_bytes_per_row=size.per_row,
        cache_written_bytes_per_position=size.per_position,
    )


def _looked_up(table: relax.TensorType, ids: relax.TensorType) -> KernelTraffic:
    """Return the traffic of reading one row of the table, or its panel, for each id."""
    row = _size(table).fixed // int(table.shape[0])
    width, count = _itemsize(ids), _size(ids)
    return KernelTraffic(
        weight_bytes=row * (count.fixed // width),
        weight_bytes_per_row=row * (count.per_row // width),
    )


def _size(array: Any) -> _Size:
    """Return an argument's bytes; none of a number, or of an array of unknown shape."""
    if not isinstance(array, relax.TensorType) or not isinstance(array.shape, relax.ShapeExpr):
        return _Size()
    count = tirx.IntImm("int64", _itemsize(array))
    for extent in array.shape:
        count = count * extent
    variables = list(tirx.analysis.undefined_vars(count))
    terms = [int(term) for term in detect_linear_equation(count, variables)]
    if not terms:
        return _Size()
    # One coefficient for each variable, and the constant.
    *slopes, fixed = terms
    of = dict.fromkeys((PAGES, NUM_BLOCKS, RUN_EDGES), 0)
    for variable, slope in zip(variables, slopes, strict=True):
        of[variable.name] = slope
    per_page = of.pop(PAGES)
    for place in (NUM_BLOCKS, RUN_EDGES):
        of.pop(place)
    return _Size(fixed, sum(of.values()), per_page // PAGE_SIZE)


def _itemsize(array: relax.TensorType) -> int:
    return int(tvm.DataType(str(array.dtype)).itemsize)
