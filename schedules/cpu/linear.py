"""Linear layers on a CPU: a register tile of the output, vectorized over output features.

A tile of some rows and columns of the output stays in registers while K goes by: each step loads
one row of the weight's tile, converts it, and multiplies it with one input for each row. Weights
are stored ``(K, N)``, so that a tile's row is contiguous. A block of rows that is not full
computes its last row again instead of branching in the inner loop, and does not store it.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.signature import extents, is_single_row, parameter_types

_NIBBLES = 8
_GROUP = 32
# 6 x 16 floats are twelve AVX2 registers of sixteen; two more hold the weights, one an input.
_GEMM_TILE = (6, 16)
# A single row needs more columns, so that enough additions are in flight to hide their latency.
_GEMV_TILE = (1, 64)


def float_linear(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``linear`` over float32 or float16 weights."""
    if definition.attrs["mvlm.storage"] == "q4":
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


def q4_linear(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``linear`` over 4-bit weights: unpack a word's eight rows, one after the other."""
    if definition.attrs["mvlm.storage"] != "q4":
        return None
    x_type, words_type, scales_type, _ = parameter_types(definition)
    width = int(x_type.shape[1])
    words_rows, features = extents(words_type)
    groups = int(scales_type.shape[0])
    tile_rows, tile = _tile(x_type, features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(x_handle: T.handle, q_handle: T.handle, s_handle: T.handle, y_handle: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        words = T.match_buffer(q_handle, (words_rows, features), "uint32")
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
                    for word in T.serial(words_rows):
                        for nibble in T.unroll(_NIBBLES):
                            # The last word of a width that eight does not divide is not full.
                            if word * _NIBBLES + nibble < width:
                                for c in T.vectorized(tile):
                                    weight[c] = (
                                        T.Cast(
                                            "float32",
                                            T.bitwise_and(
                                                T.shift_right(
                                                    words[word, column * tile + c],
                                                    T.Cast("uint32", nibble * 4),
                                                ),
                                                T.uint32(15),
                                            ),
                                        )
                                        - T.float32(7)
                                    ) * T.Cast(
                                        "float32",
                                        scales[word * _NIBBLES // _GROUP, column * tile + c],
                                    )
                                for r in T.unroll(tile_rows):
                                    for c in T.vectorized(tile):
                                        acc[r, c] += (
                                            x[
                                                T.min(block * tile_rows + r, rows - 1),
                                                word * _NIBBLES + nibble,
                                            ]
                                            * weight[c]
                                        )
                    for r in T.unroll(tile_rows):
                        if block * tile_rows + r < rows:
                            for c in T.vectorized(tile):
                                y[block * tile_rows + r, column * tile + c] = acc[r, c]

    return kernel


def _tile(x_type: Any, features: int) -> tuple[int, int]:
    """Return the rows and columns of a register tile; the columns divide `features`."""
    rows, columns = _GEMV_TILE if is_single_row(x_type) else _GEMM_TILE
    while features % columns:
        columns //= 2
    return rows, columns
