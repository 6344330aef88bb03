"""Linear layers on a CPU: a register tile of the output, vectorized over output features.

A tile of some rows and columns of the output stays in registers while K goes by: each step loads
one row of the weight's tile, converts it, and multiplies it with one input for each row. Weights
are stored ``(K, N)``, so that a tile's row is contiguous. A block of rows that is not full
computes its last row again instead of branching in the inner loop, and does not store it.

Over 8-bit activations the sum of a group is exact: its terms are whole numbers, and float32 holds
whole numbers up to 2^24, more than 32 products of 8-bit numbers come to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.signature import extents, is_single_row, parameter_types

_GROUP = 32
# 6 x 16 floats are twelve AVX2 registers of sixteen; two more hold the weights, one an input.
_GEMM_TILE = (6, 16)
# A single row needs more columns, so that enough additions are in flight to hide their latency.
_GEMV_TILE = (1, 64)


def float_linear(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``linear`` over float32 or float16 weights."""
    if _packing(definition):
        return None
    x_type, w_type, _ = parameter_types(definition)
    width, features = extents(w_type)
    dtype = str(w_type.dtype)
    tile_rows, tile = _tile(x_type, features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        w = T.match_buffer(w_handle, (width, features), dtype)
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for column in T.parallel(features // tile):
            for block in T.serial((rows + tile_rows - 1) // tile_rows):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_rows, tile), "float32", scope="local")
                    for r in T.unroll(tile_rows):
                        for c in T.vectorized(tile):
                            acc[r, c] = T.float32(0)
                    for k in T.serial(width):
                        for r in T.unroll(tile_rows):
                            for c in T.vectorized(tile):
                                acc[r, c] += x[T.min(block * tile_rows + r, rows - 1), k] * T.Cast(
                                    "float32", w[k, column * tile + c]
                                )
                    for r in T.unroll(tile_rows):
                        if block * tile_rows + r < rows:
                            for c in T.vectorized(tile):
                                y[block * tile_rows + r, column * tile + c] = acc[r, c]

    return kernel


def integer_linear(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``linear`` over integer weights and float activations."""
    packing = _packing(definition)
    if not packing or definition.attrs["mvlm.activations"] != "float32":
        return None
    x_type, q_type, scales_type, _ = parameter_types(definition)
    width = int(x_type.shape[1])
    elements, features = extents(q_type)
    groups, dtype = int(scales_type.shape[0]), str(q_type.dtype)
    level = _level(definition)
    tile_rows, tile = _tile(x_type, features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(x_handle: T.handle, q_handle: T.handle, s_handle: T.handle, y_handle: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        integers = T.match_buffer(q_handle, (elements, features), dtype)
        scales = T.match_buffer(s_handle, (groups, features), "float16")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for column in T.parallel(features // tile):
            for block in T.serial((rows + tile_rows - 1) // tile_rows):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_rows, tile), "float32", scope="local")
                    weight = T.sblock_alloc_buffer((tile,), "float32", scope="local")
                    for r in T.unroll(tile_rows):
                        for c in T.vectorized(tile):
                            acc[r, c] = T.float32(0)
                    for element in T.serial(elements):
                        for part in T.unroll(packing):
                            # The last element of a width that `packing` does not divide is not
                            # full.
                            if element * packing + part < width:
                                for c in T.vectorized(tile):
                                    weight[c] = level(
                                        integers[element, column * tile + c], part
                                    ) * T.Cast(
                                        "float32",
                                        scales[element * packing // _GROUP, column * tile + c],
                                    )
                                for r in T.unroll(tile_rows):
                                    for c in T.vectorized(tile):
                                        acc[r, c] += (
                                            x[
                                                T.min(block * tile_rows + r, rows - 1),
                                                element * packing + part,
                                            ]
                                            * weight[c]
                                        )
                    for r in T.unroll(tile_rows):
                        if block * tile_rows + r < rows:
                            for c in T.vectorized(tile):
                                y[block * tile_rows + r, column * tile + c] = acc[r, c]

    return kernel


def int8_linear(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``linear`` over integer weights and 8-bit activations."""
    packing = _packing(definition)
    if not packing or definition.attrs["mvlm.activations"] != "int8":
        return None
    x_type, _, q_type, scales_type, _ = parameter_types(definition)
    width = int(x_type.shape[1])
    elements, features = extents(q_type)
    groups, dtype = int(scales_type.shape[0]), str(q_type.dtype)
    level = _level(definition)
    tile_rows, tile = _tile(x_type, features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        x_scale_handle: T.handle,
        q_handle: T.handle,
        s_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "int8")
        x_scales = T.match_buffer(x_scale_handle, (rows, groups), "float32")
        integers = T.match_buffer(q_handle, (elements, features), dtype)
        scales = T.match_buffer(s_handle, (groups, features), "float16")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for column in T.parallel(features // tile):
            for block in T.serial((rows + tile_rows - 1) // tile_rows):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_rows, tile), "float32", scope="local")
                    exact = T.sblock_alloc_buffer((tile_rows, tile), "float32", scope="local")
                    weight = T.sblock_alloc_buffer((tile,), "float32", scope="local")
                    for r in T.unroll(tile_rows):
                        for c in T.vectorized(tile):
                            acc[r, c] = T.float32(0)
                    for group in T.serial(groups):
                        for r in T.unroll(tile_rows):
                            for c in T.vectorized(tile):
                                exact[r, c] = T.float32(0)
                        for step in T.serial(_GROUP // packing):
                            for part in T.unroll(packing):
                                if group * _GROUP + step * packing + part < width:
                                    for c in T.vectorized(tile):
                                        weight[c] = level(
                                            integers[
                                                group * (_GROUP // packing) + step,
                                                column * tile + c,
                                            ],
                                            part,
                                        )
                                    for r in T.unroll(tile_rows):
                                        for c in T.vectorized(tile):
                                            exact[r, c] += (
                                                T.Cast(
                                                    "float32",
                                                    x[
                                                        T.min(block * tile_rows + r, rows - 1),
                                                        group * _GROUP + step * packing + part,
                                                    ],
                                                )
                                                * weight[c]
                                            )
                        for r in T.unroll(tile_rows):
                            for c in T.vectorized(tile):
                                acc[r, c] += exact[r, c] * (
                                    x_scales[T.min(block * tile_rows + r, rows - 1), group]
                                    * T.Cast("float32", scales[group, column * tile + c])
                                )
                    for r in T.unroll(tile_rows):
                        if block * tile_rows + r < rows:
                            for c in T.vectorized(tile):
                                y[block * tile_rows + r, column * tile + c] = acc[r, c]

    return kernel


def _packing(definition: tirx.PrimFunc) -> int:
    """Return how many weights one stored element holds; 0 for floats."""
    return int(definition.attrs["mvlm.packing"]) if "mvlm.packing" in definition.attrs else 0


def _level(definition: tirx.PrimFunc) -> Callable[[tirx.Expr, tirx.Expr], tirx.Expr]:
    """Return what reads the integer `part` of a stored element, as float32."""
    packing, zero = _packing(definition), int(definition.attrs["mvlm.zero_point"])
    bits = 32 // packing

    def level(element: tirx.Expr, part: tirx.Expr) -> tirx.Expr:
        if packing > 1:
            shifted = T.shift_right(element, T.Cast("uint32", part * bits))
            element = T.bitwise_and(shifted, T.uint32((1 << bits) - 1))
        value = T.Cast("float32", element)
        return value - T.float32(zero) if zero else value

    return level


def _tile(x_type: Any, features: int) -> tuple[int, int]:
    """Return the rows and columns of a register tile; the columns divide `features`."""
    rows, columns = _GEMV_TILE if is_single_row(x_type) else _GEMM_TILE
    while features % columns:
        columns //= 2
    return rows, columns
