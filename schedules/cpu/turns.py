"""Parallel loops whose threads take turns: each takes the next stretch whenever it is ready.

TVM gives every thread an equal share of a parallel loop. All then wait for the slowest: one that
had to wake up first, a small core, or one that another program is running on too. Here a loop is
cut into stretches, more than there are threads, and a counter says which is next.

Beside a program that keeps one of two cores busy, that is worth a tenth of the speed.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx
from tvm.ir import StringImm
from tvm.script import tirx as T

from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.signature import is_single_row, parameter_types

# Stretches that a loop is cut into. One row alone waits for memory, which is read ahead only within
# a stretch: from 32 on it becomes slower.
_STRETCHES, _STRETCHES_OF_ONE = 128, 16
_CHOICES = (1, 4, 8, 16, 32, 64, 128, 256)
# One stretch is for one thread: it begins at once, where others would have to be woken up.
_ALONE = 1
# Of a parallel loop, which TVM shares equally: one for each thread that can take part.
_THREADS = 64
_TAKE = "mvlm_take_turn"
# TensorIR has no such operation on a CPU. The order of other memory accesses does not matter:
# starting and ending the threads sees to that.
_TAKE_IN_LLVM = f"""
define i32 @{_TAKE}(ptr %counter) alwaysinline {{
  %turn = atomicrmw add ptr %counter, i32 1 monotonic
  ret i32 %turn
}}
"""


def take_turns(
    function: tirx.PrimFunc, definition: tirx.PrimFunc, knob: Config = default_config
) -> tirx.PrimFunc:
    """Let threads take turns in all of a function's parallel loops.

    Args:
        function: A scheduled function.
        definition: What it was made of, whose first parameter tells whether one row is all.
        knob: Chooses the stretches of a loop.
    """
    root = function.body
    if not isinstance(root, s_tir.SBlockRealize):
        return function
    first = parameter_types(definition)[0]
    is_one = len(getattr(first, "shape", ())) > 0 and is_single_row(first)
    loops = _shared_loops(root.block.body)
    if not loops:
        return function
    counters: list[tirx.Buffer] = []
    default = _STRETCHES_OF_ONE if is_one else _STRETCHES
    # An extent that is not known is taken one by one, or not shared.
    is_known = any(isinstance(loop.extent, tirx.IntImm) for loop in loops)
    stretches = knob("stretches", default, _CHOICES if is_known else (_ALONE, default))
    body = _shared(root.block.body, stretches, counters)
    if stretches == _ALONE:
        return function.with_body(_block(root.block.name_hint, body, root.block.alloc_buffers))
    body = tirx.AttrStmt(T.int32(0), "pragma_import_llvm", StringImm(_TAKE_IN_LLVM), body)
    block = _block(root.block.name_hint, body, [*root.block.alloc_buffers, *counters])
    return tirx.PrimFunc(function.params, block, function.ret_type, function.attrs)


def _shared_loops(statement: Any) -> list[tirx.For]:
    """Return the parallel loops of a function's body."""
    if isinstance(statement, tirx.SeqStmt):
        return [loop for each in statement for loop in _shared_loops(each)]
    is_shared = isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL
    return [statement] if is_shared else []


def _shared(statement: Any, stretches: int, counters: list[tirx.Buffer]) -> Any:
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_shared(each, stretches, counters) for each in statement])
    if not isinstance(statement, tirx.For) or statement.kind != tirx.ForKind.PARALLEL:
        return statement
    if stretches == _ALONE:
        return tirx.For(
            statement.loop_var,
            statement.min,
            statement.extent,
            tirx.ForKind.SERIAL,
            statement.body,
        )
    counter = tirx.decl_buffer((1,), "int32", "counter")
    counters.append(counter)
    tasks = _tasks(statement, counter, stretches)
    return tirx.SeqStmt([tirx.BufferStore(counter, T.int32(0), [0]), tasks])


def _tasks(loop: tirx.For, counter: tirx.Buffer, stretches: int) -> tirx.For:
    """Return the loop whose every task takes stretches of `loop` until none is left."""
    dtype, extent = str(loop.loop_var.ty.dtype), loop.extent
    size = -(-int(extent) // stretches) if isinstance(extent, tirx.IntImm) else 1
    end = T.Cast("int32", (extent + (size - 1)) // size)
    turn = tirx.decl_buffer((1,), "int32", "turn", scope="local")
    take = tirx.BufferStore(turn, T.call_extern("int32", _TAKE, T.address_of(counter[0])), [0])
    start = T.Cast(dtype, turn[0]) * size
    count = T.min(T.Cast(dtype, size), extent - start) if size > 1 else T.Cast(dtype, 1)
    stretch = tirx.For(loop.loop_var, loop.min + start, count, tirx.ForKind.SERIAL, loop.body)
    turns = tirx.While(turn[0] < end, tirx.SeqStmt([stretch, take]))
    task = _block("turns", tirx.SeqStmt([take, turns]), [turn])
    return tirx.For(tirx.Var("task", "int32"), 0, _THREADS, tirx.ForKind.PARALLEL, task)


def _block(name: str, body: Any, buffers: list[tirx.Buffer]) -> s_tir.SBlockRealize:
    block = s_tir.SBlock([], [], [], name, body, alloc_buffers=buffers)
    return s_tir.SBlockRealize([], True, block)
