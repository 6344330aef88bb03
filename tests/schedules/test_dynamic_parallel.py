"""Dynamically scheduled loops run every iteration once, whatever the extent."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.schedules.config_space import FixedConfig
from mvlm.schedules.cpu.dynamic_parallel import next_chunk_in_llvm, schedule_dynamically
from mvlm.schedules.kernel_set import has_single_row
from tests.kernels import build

ROWS, COLUMNS = 3, 2
# What a buffer has that is not parsed.
LAYOUT = tirx.decl_buffer((1,), "int32").layout


def over_columns(rows: int, columns: int) -> tirx.PrimFunc:
    """Count the iterations of two parallel loops, one after the other, over columns."""

    @T.prim_func(private=True, s_tir=True)
    def function(y_handle: T.handle):
        y = T.match_buffer(y_handle, (rows, columns), "int32")
        for j in T.parallel(columns):
            with T.sblock("first"):
                for i in T.serial(rows):
                    y[i, j] = y[i, j] + 1
        for j in T.parallel(columns):
            with T.sblock("second"):
                for i in T.serial(rows):
                    y[i, j] = y[i, j] + T.Cast("int32", 10 * j)

    return function


@T.prim_func(private=True, s_tir=True)
def over_rows(y_handle: T.handle):
    """Count the iterations of a loop over rows, whose number is known when it is called."""
    rows = T.int64()
    y = T.match_buffer(y_handle, (rows, COLUMNS), "int32")
    for i in T.parallel(rows):
        with T.sblock("row"):
            for j in T.serial(COLUMNS):
                y[i, j] = y[i, j] + T.Cast("int32", i) + 1


@T.prim_func(private=True, s_tir=True)
def in_order(y_handle: T.handle):
    """Count the iterations of serial loops."""
    y = T.match_buffer(y_handle, (ROWS, COLUMNS), "int32")
    for i in T.serial(ROWS):
        for j in T.serial(COLUMNS):
            with T.sblock("element"):
                y[i, j] = y[i, j] + 1


def counted(function: tirx.PrimFunc, shape: tuple[int, int]) -> np.ndarray:
    """Call a function on zeros, several times: its counter must start at 0 each time."""
    call = build(schedule_dynamically(function, has_single_row(function)))
    for _ in range(3):
        y = tvm.runtime.tensor(np.zeros(shape, np.int32))
        call(y)
    return y.numpy()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 64, 127, 128, 129, 300, 704])
def test_known_extents(rows: int, columns: int) -> None:
    """Chunks of one iteration and of several, the last of which may be short."""
    expected = np.tile(1 + 10 * np.arange(columns, dtype=np.int32), (rows, 1))
    np.testing.assert_array_equal(counted(over_columns(rows, columns), (rows, columns)), expected)


@pytest.mark.parametrize("rows", [1, 2, 63, 65, 200])
def test_unknown_extents(rows: int) -> None:
    expected = np.repeat(1 + np.arange(rows, dtype=np.int32), COLUMNS).reshape(rows, COLUMNS)
    np.testing.assert_array_equal(counted(over_rows, (rows, COLUMNS)), expected)


def test_serial_loops_are_left_alone() -> None:
    assert schedule_dynamically(in_order, has_few_rows=False) is in_order
    assert (counted(in_order, (ROWS, COLUMNS)) == 1).all()


def in_one_chunk(is_known: bool) -> tirx.PrimFunc:
    """The functions above with serial loops."""

    @T.prim_func(private=True, s_tir=True)
    def columns(y_handle: T.handle):
        y = T.match_buffer(y_handle, (ROWS, COLUMNS), "int32")
        for j in T.serial(COLUMNS):
            with T.sblock("first"):
                for i in T.serial(ROWS):
                    y[i, j] = y[i, j] + 1
        for j in T.serial(COLUMNS):
            with T.sblock("second"):
                for i in T.serial(ROWS):
                    y[i, j] = y[i, j] + T.Cast("int32", 10 * j)

    @T.prim_func(private=True, s_tir=True)
    def rows(y_handle: T.handle):
        rows = T.int64()
        y = T.match_buffer(y_handle, (rows, COLUMNS), "int32")
        for i in T.serial(rows):
            with T.sblock("row"):
                for j in T.serial(COLUMNS):
                    y[i, j] = y[i, j] + T.Cast("int32", i) + 1

    return columns if is_known else rows


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known"])
def test_one_chunk_makes_a_serial_loop(is_known: bool) -> None:
    function = over_columns(ROWS, COLUMNS) if is_known else over_rows
    alone = schedule_dynamically(function, False, FixedConfig({"num_chunks": 1}))
    tvm.ir.assert_structural_equal(alone, in_one_chunk(is_known))


def in_chunks(rows: int, size: int) -> tirx.PrimFunc:
    """Two loops over 704 columns, in chunks of `size`."""
    num_chunks, next_chunk = -(-704 // size), next_chunk_in_llvm()

    @T.prim_func(private=True, s_tir=True)
    def function(y_handle: T.handle):
        y = T.match_buffer(y_handle, (rows, 704), "int32")
        counter = T.sblock_alloc_buffer((1,), "int32", layout=LAYOUT)
        counter_1 = T.sblock_alloc_buffer((1,), "int32", layout=LAYOUT)
        T.attr(T.int32(0), "pragma_import_llvm", next_chunk)
        counter[0] = 0
        for _ in T.parallel(64):
            with T.sblock("chunks"):
                T.reads()
                T.writes()
                chunk = T.sblock_alloc_buffer((1,), "int32", scope="local", layout=LAYOUT)
                chunk[0] = T.call_extern("int32", "mvlm_next_chunk", T.address_of(counter[0]))
                while chunk[0] < T.Cast("int32", num_chunks):
                    start = T.meta_var(T.Cast("int32", chunk[0]) * size)
                    for j in range(start, start + T.min(T.Cast("int32", size), 704 - start)):
                        with T.sblock("first"):
                            for i in T.serial(rows):
                                y[i, j] = y[i, j] + 1
                    chunk[0] = T.call_extern("int32", "mvlm_next_chunk", T.address_of(counter[0]))
        counter_1[0] = 0
        for _ in T.parallel(64):
            with T.sblock("chunks"):
                T.reads()
                T.writes()
                chunk_1 = T.sblock_alloc_buffer((1,), "int32", scope="local", layout=LAYOUT)
                chunk_1[0] = T.call_extern("int32", "mvlm_next_chunk", T.address_of(counter_1[0]))
                while chunk_1[0] < T.Cast("int32", num_chunks):
                    start = T.meta_var(T.Cast("int32", chunk_1[0]) * size)
                    for j in range(start, start + T.min(T.Cast("int32", size), 704 - start)):
                        with T.sblock("second"):
                            for i in T.serial(rows):
                                y[i, j] = y[i, j] + T.Cast("int32", 10 * j)
                    chunk_1[0] = T.call_extern(
                        "int32", "mvlm_next_chunk", T.address_of(counter_1[0])
                    )

    return function


@pytest.mark.parametrize(("rows", "size"), [(1, 44), (2, 6)])
def test_one_row_has_fewer_chunks(rows: int, size: int) -> None:
    """It is bound by memory, and the CPU prefetches within a chunk: 704 panels, 44 each, not 6."""
    function = over_columns(rows, 704)
    found = schedule_dynamically(function, has_single_row(function))
    tvm.ir.assert_structural_equal(simplified(found), simplified(in_chunks(rows, size)))


def simplified(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Casts of constants folded."""
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    return tirx.transform.StmtSimplify()(module)["main"]


@pytest.mark.parametrize(
    ("triple", "features", "aligned"),
    [
        ("x86_64-linux-gnu", ["+avx", "+avx2"], True),
        ("x86_64-linux-gnu", ["+ssse3"], False),
        ("aarch64-linux-gnu", ["+neon"], False),
    ],
)
def test_stack_is_aligned_to_wide_registers(
    triple: str, features: list[str], aligned: bool
) -> None:
    """Else registers are spilled across cache lines, depending on the caller."""
    target = Target({"kind": "llvm", "mtriple": triple, "mattr": features})
    with target:
        function = schedule_dynamically(over_columns(2, 704), has_few_rows=False)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    assembly = tvm.compile(module, target=target).mod.inspect_source("asm")
    assert "atomicrmw" not in assembly and "main_compute_" in assembly
    assert ("$-64, %rsp" in assembly) is aligned
