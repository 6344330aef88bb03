"""Bidirectional attention on a CPU: one head at a time, a block of queries in a register tile.

A head's keys are transposed and its values copied once, so that scores are vectorized over keys and
the weighted sum over channels, and each block reads both sequentially. The last tile of keys is
padded with zeros, which are masked.

Threads share the heads.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.signatures import AttentionSignature
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.exponential import LOG2_E, exp2
from mvlm.schedules.cpu.vectors import QUERY_TILE_M_VALUES, default_tile_m, tile_width

_TILE_N = 16


def bidirectional_attention(
    op: AttentionSignature, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Build the kernel of ``attention``."""
    length, heads, head_dim, hidden = op.length, op.heads, op.head_dim, op.hidden
    tile_n = knob("tile_n", _TILE_N, (16, 32))
    key_tiles = -(-length // tile_n)
    padded, channel_tile = key_tiles * tile_n, tile_width(head_dim, tile_n)
    tile_m = knob("tile_m", default_tile_m(Target.current(allow_none=False)), QUERY_TILE_M_VALUES)
    scale = head_dim**-0.5 * LOG2_E  # weights are powers of two

    @T.prim_func(private=True, s_tir=True)
    def kernel(qkv_handle: T.handle, out_handle: T.handle):
        qkv = T.match_buffer(qkv_handle, (length, 3 * hidden), "float32")
        out = T.match_buffer(out_handle, (length, hidden), "float32")
        for h in T.parallel(heads):
            with T.sblock("head"):
                query = T.sblock_alloc_buffer((tile_m, head_dim), "float32")
                keys = T.sblock_alloc_buffer((head_dim, padded), "float32")
                values = T.sblock_alloc_buffer((length, head_dim), "float32")
                scores = T.sblock_alloc_buffer((tile_m, padded), "float32")
                acc = T.sblock_alloc_buffer((tile_m, tile_n), "float32", scope="local")
                lane = T.sblock_alloc_buffer((tile_n,), "float32", scope="local")
                row_max = T.sblock_alloc_buffer((1,), "float32", scope="local")
                row_sum = T.sblock_alloc_buffer((tile_m,), "float32")

                @T.inline
                def load_keys_and_values():
                    for d in T.serial(head_dim):
                        for j in T.serial(length):
                            keys[d, j] = qkv[j, hidden + h * head_dim + d]
                        for j in T.serial(padded - length):
                            keys[d, length + j] = T.float32(0)
                    for j in T.serial(length):
                        for d in T.serial(head_dim):
                            values[j, d] = qkv[j, 2 * hidden + h * head_dim + d]

                @T.inline
                def load_query(r, block):
                    row = T.meta_var(T.min(block * tile_m + r, length - 1))
                    for d in T.serial(head_dim):
                        query[r, d] = qkv[row, h * head_dim + d] * T.float32(scale)

                @T.inline
                def score_keys(at):
                    for r in T.unroll(tile_m):
                        for c in T.vectorized(tile_n):
                            acc[r, c] = T.float32(0)
                    for d in T.serial(head_dim):
                        for r in T.unroll(tile_m):
                            for c in T.vectorized(tile_n):
                                acc[r, c] += query[r, d] * keys[d, at * tile_n + c]
                    for r in T.unroll(tile_m):
                        for c in T.vectorized(tile_n):
                            scores[r, at * tile_n + c] = acc[r, c]

                @T.inline
                def softmax(r):
                    for c in T.vectorized(tile_n):
                        lane[c] = T.min_value("float32")
                    for at in T.serial(key_tiles):
                        for c in T.vectorized(tile_n):
                            j = T.meta_var(at * tile_n + c)
                            scores[r, j] = T.Select(
                                j < length, scores[r, j], T.min_value("float32")
                            )
                            lane[c] = T.max(lane[c], scores[r, j])
                    row_max[0] = lane[0]
                    for c in T.serial(tile_n):
                        row_max[0] = T.max(row_max[0], lane[c])
                    for c in T.vectorized(tile_n):
                        lane[c] = T.float32(0)
                    for at in T.serial(key_tiles):
                        for c in T.vectorized(tile_n):
                            j = T.meta_var(at * tile_n + c)
                            scores[r, j] = exp2(scores[r, j] - row_max[0])
                            lane[c] += scores[r, j]
                    row_sum[r] = T.float32(0)
                    for c in T.serial(tile_n):
                        row_sum[r] += lane[c]

                @T.inline
                def accumulate_values(block, at):
                    for r in T.unroll(tile_m):
                        for c in T.vectorized(channel_tile):
                            acc[r, c] = T.float32(0)
                    for j in T.serial(length):
                        for r in T.unroll(tile_m):
                            for c in T.vectorized(channel_tile):
                                acc[r, c] += scores[r, j] * values[j, at * channel_tile + c]
                    for r in T.unroll(tile_m):
                        if block * tile_m + r < length:
                            for c in T.vectorized(channel_tile):
                                d = T.meta_var(h * head_dim + at * channel_tile + c)
                                out[block * tile_m + r, d] = acc[r, c] / row_sum[r]

                load_keys_and_values()
                for block in T.serial((length + tile_m - 1) // tile_m):
                    for r in T.serial(tile_m):
                        load_query(r, block)
                    for at in T.serial(key_tiles):
                        score_keys(at)
                    for r in T.serial(tile_m):
                        softmax(r)
                    for at in T.serial(head_dim // channel_tile):
                        accumulate_values(block, at)

    return kernel
