"""The exponential of the kernels, against NumPy in float64."""

from __future__ import annotations

import numpy as np
from tvm.script import tirx as T

from mvlm.schedules.cpu.exponential import exp2
from tests.kernels import Array, run


def powers(x: Array) -> Array:
    width = 16

    @T.prim_func(private=True, s_tir=True)
    def kernel(x_handle: T.handle, y_handle: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        y = T.match_buffer(y_handle, (rows, width), "float32")
        for i in T.serial(rows):
            with T.sblock("row"):
                for c in T.vectorized(width):
                    y[i, c] = exp2(x[i, c])

    return run(kernel, [x.reshape(-1, width)], (x.size // width, width)).ravel()


def test_within_two_units_in_the_last_place() -> None:
    x = np.linspace(-126, 126, 1 << 16, dtype=np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(powers(x) / exact - 1).max() < 2e-7


def test_whole_numbers_are_exact() -> None:
    x = np.arange(-126, 114, dtype=np.float32)
    np.testing.assert_array_equal(powers(x), np.exp2(x))


def test_far_below_it_is_zero() -> None:
    x = np.array([-np.inf, np.finfo(np.float32).min, -1e30, -1e5] * 4, np.float32)
    np.testing.assert_array_equal(powers(x), 0)
