"""Dynamic scheduling of parallel loops: threads claim chunks from an atomic counter.

TVM schedules a parallel loop statically, in equal parts. All threads then wait for the slowest: one
that had to wake up first, one on a small core, or one that shares its core with another program.
Here a loop is cut into more chunks than there are threads, and a thread that has finished a chunk
claims the next one.

While another program keeps one of two cores busy, that is worth a tenth of the speed.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from tvm import s_tir, tirx
from tvm.ir import StringImm
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.signatures import LinearSignature, QuantizedLinearSignature, Signature
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.vectors import cpu_features

# Chunks of a loop. One row, or few, are bound by memory, which the CPU prefetches only within a
# chunk: from 32 chunks on they become slower.
_NUM_CHUNKS, _NUM_CHUNKS_OF_FEW_ROWS = 128, 16
_NUM_CHUNKS_VALUES = (1, 4, 8, 16, 32, 64, 128, 256)
# One chunk is a serial loop: it starts at once, whereas other threads would have to be woken up.
_SERIAL = 1
# Iterations of the parallel loop that TVM schedules statically: at least one for each thread.
_TASKS = 64
# Bytes of weights that one thread multiplies with one row in the microseconds that waking another
# one takes; of few rows, which take up to four times as long, it is a quarter.
_SERIAL_BYTES = 1 << 18
_NEXT_CHUNK = "mvlm_next_chunk"
# A variable of 64 bytes' alignment has LLVM align the stack of the function that it is inlined
# into. It would otherwise spill registers of 32 and 64 bytes to addresses aligned to 16. Whether
# these cross cache lines depends on the caller; where they do, a product of matrices takes a tenth
# longer.
_ALIGN_STACK = """%aligned = alloca i8, align 64
  call void asm sideeffect "", "r"(ptr %aligned)"""


def loop_of(op: Signature, size: float, *, serial_of_one: float, serial_of_few: float = 0) -> Any:
    """Return the kind of an operation's outer loop: parallel, but serial where it is short.

    It is then finished before another thread has begun.

    Args:
        op: The operation.
        size: Of the work for a row, in any unit.
        serial_of_one: From which size on one row is worth another thread.
        serial_of_few: The same for few rows.
    """
    if op.is_single_row:
        is_short = size < serial_of_one
    else:
        is_short = op.has_few_rows and size < serial_of_few
    return T.serial if is_short else T.parallel


def panel_loop(op: LinearSignature | QuantizedLinearSignature) -> Any:
    """Return the kind of loop over panels, by the bytes of the matrix (see `loop_of`)."""
    matrix = op.weight_parameters[0]
    nbytes = prod(matrix.known_shape({})) * np.dtype(matrix.dtype).itemsize
    return loop_of(op, nbytes, serial_of_one=_SERIAL_BYTES, serial_of_few=_SERIAL_BYTES // 4)


def next_chunk_in_llvm() -> str:
    """Return the function that claims a chunk, in LLVM's language, for the current target."""
    target = Target.current(allow_none=True)
    has_wide_registers = target is not None and "+avx" in cpu_features(target)
    # TensorIR has no atomic addition on a CPU. A monotonic one is enough: starting and joining the
    # threads orders all other memory accesses.
    return f"""
define i32 @{_NEXT_CHUNK}(ptr %counter) alwaysinline {{
  {_ALIGN_STACK if has_wide_registers else ""}
  %chunk_index = atomicrmw add ptr %counter, i32 1 monotonic
  ret i32 %chunk_index
}}
"""


def schedule_dynamically(
    function: tirx.PrimFunc, has_few_rows: bool, knob: Config = default_config
) -> tirx.PrimFunc:
    """Schedule all of a function's parallel loops dynamically.

    Args:
        function: A scheduled function.
        has_few_rows: Whether the function has one row, or few.
        knob: The configuration; the knob is the number of chunks of a loop.
    """
    root = function.body
    if not isinstance(root, s_tir.SBlockRealize):
        return function
    loops = _parallel_loops(root.block.body)
    if not loops:
        return function
    counters: list[tirx.Buffer] = []
    default = _NUM_CHUNKS_OF_FEW_ROWS if has_few_rows else _NUM_CHUNKS
    # A loop of unknown extent has a chunk for each iteration, or is serial.
    is_known = any(isinstance(loop.extent, tirx.IntImm) for loop in loops)
    num_chunks = knob("num_chunks", default, _NUM_CHUNKS_VALUES if is_known else (_SERIAL, default))
    body = _with_dynamic_loops(root.block.body, num_chunks, counters)
    if num_chunks == _SERIAL:
        return function.with_body(_block(root.block.name_hint, body, root.block.alloc_buffers))
    body = tirx.AttrStmt(T.int32(0), "pragma_import_llvm", StringImm(next_chunk_in_llvm()), body)
    block = _block(root.block.name_hint, body, [*root.block.alloc_buffers, *counters])
    return tirx.PrimFunc(function.params, block, function.ret_type, function.attrs)


def _parallel_loops(statement: Any) -> list[tirx.For]:
    """Return the parallel loops of a function's body."""
    if isinstance(statement, tirx.SeqStmt):
        return [loop for each in statement for loop in _parallel_loops(each)]
    is_parallel = isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL
    return [statement] if is_parallel else []


def _with_dynamic_loops(statement: Any, num_chunks: int, counters: list[tirx.Buffer]) -> Any:
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_with_dynamic_loops(each, num_chunks, counters) for each in statement])
    if not isinstance(statement, tirx.For) or statement.kind != tirx.ForKind.PARALLEL:
        return statement
    if num_chunks == _SERIAL:
        return tirx.For(
            statement.loop_var,
            statement.min,
            statement.extent,
            tirx.ForKind.SERIAL,
            statement.body,
        )
    counter = tirx.decl_buffer((1,), "int32", "counter")
    counters.append(counter)
    tasks = _task_loop(statement, counter, num_chunks)
    return tirx.SeqStmt([tirx.BufferStore(counter, T.int32(0), [0]), tasks])


def _task_loop(loop: tirx.For, counter: tirx.Buffer, num_chunks: int) -> tirx.For:
    """Return a parallel loop whose tasks claim chunks of `loop` until none is left."""
    dtype, extent = str(loop.loop_var.ty.dtype), loop.extent
    size = -(-int(extent) // num_chunks) if isinstance(extent, tirx.IntImm) else 1
    end = T.Cast("int32", (extent + (size - 1)) // size)
    chunk_index = tirx.decl_buffer((1,), "int32", "chunk_index", scope="local")
    next_chunk = tirx.BufferStore(
        chunk_index, T.call_extern("int32", _NEXT_CHUNK, T.address_of(counter[0])), [0]
    )
    start = T.Cast(dtype, chunk_index[0]) * size
    count = T.min(T.Cast(dtype, size), extent - start) if size > 1 else T.Cast(dtype, 1)
    chunk = tirx.For(loop.loop_var, loop.min + start, count, tirx.ForKind.SERIAL, loop.body)
    chunks = tirx.While(chunk_index[0] < end, tirx.SeqStmt([chunk, next_chunk]))
    task = _block("chunks", tirx.SeqStmt([next_chunk, chunks]), [chunk_index])
    return tirx.For(tirx.Var("task", "int32"), 0, _TASKS, tirx.ForKind.PARALLEL, task)


def _block(name: str, body: Any, buffers: list[tirx.Buffer]) -> s_tir.SBlockRealize:
    block = s_tir.SBlock([], [], [], name, body, alloc_buffers=buffers)
    return s_tir.SBlockRealize([], True, block)
