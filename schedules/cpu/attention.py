"""Bidirectional attention on a CPU: one head at a time, a block of queries in a register tile.

A head's keys are transposed and its values copied once, so that scores are vectorized over keys and
the weighted sum over channels, and both are read from its beginning to its end for each block.
The last tile of keys is filled up with zeros, which count for nothing.

Heads are shared between the threads.
"""

from __future__ import annotations

from math import e, log2

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.exponential import exp2
from mvlm.schedules.cpu.vectors import columns, rows_of_a_tile
from mvlm.schedules.signature import extents, parameter_types

_COLUMNS = 16
_ROWS = (2, 3, 4, 6, 8, 10, 12, 16)


def bidirectional_attention(
    definition: tirx.PrimFunc, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Serve ``attention``."""
    heads, head_dim = int(definition.attrs["mvlm.heads"]), int(definition.attrs["mvlm.head_dim"])
    length, width = extents(parameter_types(definition)[0])
    hidden = heads * head_dim
    width_of_tile = knob("columns", _COLUMNS, (16, 32))
    key_tiles = -(-length // width_of_tile)
    padded, channels = key_tiles * width_of_tile, columns(head_dim, width_of_tile)
    tile_rows = knob("rows", rows_of_a_tile(Target.current(allow_none=False)), _ROWS)
    scale = head_dim**-0.5 * log2(e)  # weights are powers of two

    @T.prim_func(private=True, s_tir=True)
    def kernel(qkv_handle: T.handle, out_handle: T.handle):
        qkv = T.match_buffer(qkv_handle, (length, width), "float32")
        out = T.match_buffer(out_handle, (length, hidden), "float32")
        for h in T.parallel(heads):
            with T.sblock("head"):
                query = T.sblock_alloc_buffer((tile_rows, head_dim), "float32")
                keys = T.sblock_alloc_buffer((head_dim, padded), "float32")
                values = T.sblock_alloc_buffer((length, head_dim), "float32")
                scores = T.sblock_alloc_buffer((tile_rows, padded), "float32")
                acc = T.sblock_alloc_buffer((tile_rows, width_of_tile), "float32", scope="local")
                lane = T.sblock_alloc_buffer((width_of_tile,), "float32", scope="local")
                largest = T.sblock_alloc_buffer((1,), "float32", scope="local")
                total = T.sblock_alloc_buffer((tile_rows,), "float32")
                for d in T.serial(head_dim):
                    for j in T.serial(length):
                        keys[d, j] = qkv[j, hidden + h * head_dim + d]
                    for j in T.serial(padded - length):
                        keys[d, length + j] = T.float32(0)
                for j in T.serial(length):
                    for d in T.serial(head_dim):
                        values[j, d] = qkv[j, 2 * hidden + h * head_dim + d]
                for block in T.serial((length + tile_rows - 1) // tile_rows):
                    for r in T.serial(tile_rows):
                        for d in T.serial(head_dim):
                            query[r, d] = qkv[
                                T.min(block * tile_rows + r, length - 1), h * head_dim + d
                            ] * T.float32(scale)
                    for tile in T.serial(key_tiles):
                        for r in T.unroll(tile_rows):
                            for c in T.vectorized(width_of_tile):
                                acc[r, c] = T.float32(0)
                        for d in T.serial(head_dim):
                            for r in T.unroll(tile_rows):
                                for c in T.vectorized(width_of_tile):
                                    acc[r, c] += query[r, d] * keys[d, tile * width_of_tile + c]
                        for r in T.unroll(tile_rows):
                            for c in T.vectorized(width_of_tile):
                                scores[r, tile * width_of_tile + c] = acc[r, c]
                    for r in T.serial(tile_rows):
                        for c in T.vectorized(width_of_tile):
                            lane[c] = T.min_value("float32")
                        for tile in T.serial(key_tiles):
                            for c in T.vectorized(width_of_tile):
                                scores[r, tile * width_of_tile + c] = T.Select(
                                    tile * width_of_tile + c < length,
                                    scores[r, tile * width_of_tile + c],
                                    T.min_value("float32"),
                                )
                                lane[c] = T.max(lane[c], scores[r, tile * width_of_tile + c])
                        largest[0] = lane[0]
                        for c in T.serial(width_of_tile):
                            largest[0] = T.max(largest[0], lane[c])
                        for c in T.vectorized(width_of_tile):
                            lane[c] = T.float32(0)
                        for tile in T.serial(key_tiles):
                            for c in T.vectorized(width_of_tile):
                                scores[r, tile * width_of_tile + c] = exp2(
                                    scores[r, tile * width_of_tile + c] - largest[0]
                                )
                                lane[c] += scores[r, tile * width_of_tile + c]
                        total[r] = T.float32(0)
                        for c in T.serial(width_of_tile):
                            total[r] += lane[c]
                    for tile in T.serial(head_dim // channels):
                        for r in T.unroll(tile_rows):
                            for c in T.vectorized(channels):
                                acc[r, c] = T.float32(0)
                        for j in T.serial(length):
                            for r in T.unroll(tile_rows):
                                for c in T.vectorized(channels):
                                    acc[r, c] += scores[r, j] * values[j, tile * channels + c]
                        for r in T.unroll(tile_rows):
                            if block * tile_rows + r < length:
                                for c in T.vectorized(channels):
                                    out[
                                        block * tile_rows + r, h * head_dim + tile * channels + c
                                    ] = acc[r, c] / total[r]

    return kernel
