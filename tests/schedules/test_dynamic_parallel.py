"""Dynamically scheduled loops run every iteration once, whatever the extent."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.config_space import FixedConfig
from mvlm.schedules.cpu.dynamic_parallel import schedule_dynamically
from tests.kernels import build

ROWS, COLUMNS = 3, 2


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
    call = build(schedule_dynamically(function, function))
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
    assert schedule_dynamically(in_order, in_order) is in_order
    assert (counted(in_order, (ROWS, COLUMNS)) == 1).all()


@pytest.mark.parametrize("function", [over_columns(3, 2), over_rows], ids=["known", "not known"])
def test_one_chunk_makes_a_serial_loop(function: tirx.PrimFunc) -> None:
    alone = schedule_dynamically(function, function, FixedConfig({"num_chunks": 1}))
    assert "T.parallel" not in alone.script()
    y = tvm.runtime.tensor(np.zeros((ROWS, COLUMNS), np.int32))
    build(alone)(y)
    np.testing.assert_array_equal(y.numpy() > 0, True)


def test_one_row_has_fewer_chunks() -> None:
    """It is bound by memory, and the CPU prefetches within a chunk: 704 panels, 44 each, not 6."""
    one, many = over_columns(1, 704), over_columns(2, 704)
    assert "* 44" in schedule_dynamically(one, one).script()
    assert "* 6" in schedule_dynamically(many, many).script()
