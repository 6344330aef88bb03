"""Causal attention over the KV cache on a CPU, with an online softmax over the pages of a head.

A block of queries of one head iterates over the pages: scores, vectorized over positions; the
running maximum `row_max`, by which the accumulated values are rescaled when it grows; the weighted
sum of the values, vectorized over channels (the online softmax of FlashAttention, arXiv 2205.14135,
section 3.1). A block reads each page once, and no buffer grows with the context.

One token has a block of one query, with larger tiles of positions and channels instead.
Threads share the heads.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import CachedAttentionSignature
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.exponential import LOG2_E, exp2
from mvlm.schedules.cpu.prefetch import prefetch_block
from mvlm.schedules.cpu.rotation import rotate_into
from mvlm.schedules.cpu.vectors import QUERY_TILE_M_VALUES, default_tile_m, lanes, tile_width

_TILE_N = 16
# A single query needs larger tiles: enough independent additions to hide their latency.
_TILE_N_OF_ONE_ROW = 80
# With fewer channels in all, one token's attention ends before another thread has woken up.
_SERIAL_CHANNELS = 1024
# Of the online softmax: the row's new maximum, and the factor that rescales what is accumulated.
_M_NEW, _ALPHA = 0, 1


def cached_attention(
    op: CachedAttentionSignature, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Build the kernel of ``cached_attention``."""
    if op.head_dim % 2:
        return None
    kv_heads, head_dim, page_size = op.kv_heads, op.head_dim, op.page_size
    heads, half, storage = op.heads, op.head_dim // 2, op.storage
    group_size, has_scales = heads // kv_heads, op.has_scales
    if op.is_single_row:
        tile_m, tile_n = 1, knob("tile_n", _TILE_N_OF_ONE_ROW, (16, 32, 64, 80, 128))
        prefetches = bool(knob("prefetch", 1, (0, 1)))
        loop = T.serial if heads * head_dim < _SERIAL_CHANNELS else T.parallel
    else:
        tile_m = knob(
            "tile_m", default_tile_m(Target.current(allow_none=False)), QUERY_TILE_M_VALUES
        )
        tile_n, prefetches, loop = knob("tile_n", _TILE_N, (16, 32)), False, T.parallel
    key_tile, channel_tile = tile_width(page_size, tile_n), tile_width(head_dim, tile_n)
    key_lanes, channel_lanes = lanes(page_size), lanes(head_dim)
    add_scores = _multiply_add(tile_m, key_tile, key_lanes)
    add_values = _multiply_add(tile_m, channel_tile, channel_lanes)
    # One token is bound by memory: the next block is prefetched while one is read.
    prefetch_values, prefetch_keys = (
        prefetch_block(page_size * head_dim, inner, steps, storage, prefetches)
        for inner, steps in (
            (head_dim, page_size // key_tile * (head_dim // channel_lanes)),
            (page_size, head_dim // channel_tile * (page_size // key_lanes)),
        )
    )
    rotate = rotate_into(head_dim, scale=head_dim**-0.5 * LOG2_E)  # weights are powers of two

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        start_handle: T.handle,
        table_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
        out_handle: T.handle,
    ):
        rows, num_blocks, pages = T.int64(), T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (rows, half), "float32")
        sin = T.match_buffer(sin_handle, (rows, half), "float32")
        start = T.match_buffer(start_handle, (1,), "int32")
        table = T.match_buffer(table_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, page_size), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, page_size, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, page_size), "float32")
        out = T.match_buffer(out_handle, (rows, heads, head_dim), "float32")
        for h in loop(heads):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("block"):
                    query = T.sblock_alloc_buffer((tile_m, head_dim), "float32")
                    scores = T.sblock_alloc_buffer((tile_m, page_size), "float32")
                    o_acc = T.sblock_alloc_buffer((tile_m, head_dim), "float32")
                    # Access by whole registers only: otherwise LLVM keeps them in memory.
                    score_acc = T.sblock_alloc_buffer(
                        (tile_m, key_tile // key_lanes, key_lanes), "float32", scope="local"
                    )
                    value_acc = T.sblock_alloc_buffer(
                        (tile_m, channel_tile // channel_lanes, channel_lanes),
                        "float32",
                        scope="local",
                    )
                    lane = T.sblock_alloc_buffer((key_lanes,), "float32", scope="local")
                    row_max = T.sblock_alloc_buffer((tile_m,), "float32")
                    row_sum = T.sblock_alloc_buffer((tile_m,), "float32")
                    online = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    # Positions up to the block's last row, clipped to the sequence's end.
                    kv_len = T.meta_var(
                        T.Cast("int64", start[0]) + T.min((block + 1) * tile_m, rows)
                    )
                    for r in T.serial(tile_m):
                        i: T.let = T.min(block * tile_m + r, rows - 1)
                        rotate(query, r, qkv, cos, sin, i, h)
                        row_max[r] = T.min_value("float32")
                        row_sum[r] = T.float32(0)
                        for d in T.serial(head_dim):
                            o_acc[r, d] = T.float32(0)
                    for p in T.serial((kv_len + page_size - 1) // page_size):
                        page: T.let = T.Cast("int64", table[p])
                        # The next head's first page comes after the last one.
                        is_last = T.meta_var((p + 1) * page_size >= kv_len)
                        next_page: T.let = T.Cast(
                            "int64", table[T.Select(is_last, T.int64(0), p + 1)]
                        )
                        next_head: T.let = (
                            T.Select(is_last, T.min(h + 1, heads - 1), h) // group_size
                        )
                        for tile in T.serial(page_size // key_tile):
                            for r in T.unroll(tile_m):
                                for part in T.unroll(key_tile // key_lanes):
                                    score_acc[r, part, T.ramp(0, 1, key_lanes)] = T.broadcast(
                                        T.float32(0), key_lanes
                                    )
                            for outer in T.serial(head_dim // channel_lanes):
                                prefetch_values(
                                    values,
                                    page,
                                    h // group_size,
                                    tile * (head_dim // channel_lanes) + outer,
                                )
                                for inner in T.serial(channel_lanes):
                                    add_scores(
                                        score_acc,
                                        query,
                                        keys,
                                        page,
                                        h // group_size,
                                        outer * channel_lanes + inner,
                                        tile,
                                    )
                            for r in T.unroll(tile_m):
                                for part in T.unroll(key_tile // key_lanes):
                                    scores[
                                        r, T.ramp(tile * key_tile + part * key_lanes, 1, key_lanes)
                                    ] = score_acc[r, part, T.ramp(0, 1, key_lanes)]
                        for r in T.serial(tile_m):
                            # The row's last position, counted from the page's first.
                            last: T.let = T.Cast(
                                "int32",
                                T.Cast("int64", start[0])
                                + T.min(block * tile_m + r, rows - 1)
                                - p * page_size,
                            )
                            for c in T.vectorized(key_lanes):
                                lane[c] = row_max[r]
                            for part in T.serial(page_size // key_lanes):
                                for c in T.vectorized(key_lanes):
                                    if has_scales:
                                        scores[r, part * key_lanes + c] *= scales[
                                            page, h // group_size, 0, part * key_lanes + c
                                        ]
                                    # Positions behind the last may hold anything, NaN included.
                                    scores[r, part * key_lanes + c] = T.Select(
                                        T.Cast("int32", part * key_lanes + c) <= last,
                                        scores[r, part * key_lanes + c],
                                        T.min_value("float32"),
                                    )
                                    lane[c] = T.max(lane[c], scores[r, part * key_lanes + c])
                            online[_M_NEW] = lane[0]
                            for c in T.serial(key_lanes):
                                online[_M_NEW] = T.max(online[_M_NEW], lane[c])
                            online[_ALPHA] = exp2(row_max[r] - online[_M_NEW])
                            row_max[r] = online[_M_NEW]
                            for c in T.vectorized(key_lanes):
                                lane[c] = T.float32(0)
                            for part in T.serial(page_size // key_lanes):
                                for c in T.vectorized(key_lanes):
                                    scores[r, part * key_lanes + c] = exp2(
                                        scores[r, part * key_lanes + c] - online[_M_NEW]
                                    )
                                    lane[c] += scores[r, part * key_lanes + c]
                                    if has_scales:
                                        scores[r, part * key_lanes + c] *= scales[
                                            page, h // group_size, 1, part * key_lanes + c
                                        ]
                            row_sum[r] = row_sum[r] * online[_ALPHA]
                            for c in T.serial(key_lanes):
                                row_sum[r] += lane[c]
                            for d in T.serial(head_dim):
                                o_acc[r, d] *= online[_ALPHA]
                        for tile in T.serial(head_dim // channel_tile):
                            for r in T.unroll(tile_m):
                                for part in T.unroll(channel_tile // channel_lanes):
                                    value_acc[r, part, T.ramp(0, 1, channel_lanes)] = o_acc[
                                        r,
                                        T.ramp(
                                            tile * channel_tile + part * channel_lanes,
                                            1,
                                            channel_lanes,
                                        ),
                                    ]
                            count = T.meta_var(T.min(page_size, kv_len - p * page_size))
                            for outer in T.serial((count + key_lanes - 1) // key_lanes):
                                prefetch_keys(
                                    keys,
                                    next_page,
                                    next_head,
                                    tile * (page_size // key_lanes) + outer,
                                )
                                for inner in T.serial(T.min(key_lanes, count - outer * key_lanes)):
                                    add_values(
                                        value_acc,
                                        scores,
                                        values,
                                        page,
                                        h // group_size,
                                        outer * key_lanes + inner,
                                        tile,
                                    )
                            for r in T.unroll(tile_m):
                                for part in T.unroll(channel_tile // channel_lanes):
                                    o_acc[
                                        r,
                                        T.ramp(
                                            tile * channel_tile + part * channel_lanes,
                                            1,
                                            channel_lanes,
                                        ),
                                    ] = value_acc[r, part, T.ramp(0, 1, channel_lanes)]
                    for r in T.serial(tile_m):
                        if block * tile_m + r < rows:
                            for d in T.serial(head_dim):
                                out[block * tile_m + r, h, d] = o_acc[r, d] / row_sum[r]

    return keep_parameters(kernel, op)


def _multiply_add(rows: int, width: int, key_lanes: int) -> Any:
    """Return an inline function that accumulates a line of a page times each row's factor.

    It takes the accumulators ``(rows, width / vector, vector)``, the factors ``(rows, lines)``, the
    pool, the page, the head, the line, and the index of the tile of `width` elements in the line.
    """

    @T.inline
    def add(
        sums: tirx.Buffer,
        factors: tirx.Buffer,
        pool: tirx.Buffer,
        page: tirx.Expr,
        head: tirx.Expr,
        line: tirx.Expr,
        tile: tirx.Expr,
    ) -> None:
        for part in T.unroll(width // key_lanes):
            for r in T.unroll(rows):
                sums[r, part, T.ramp(0, 1, key_lanes)] += T.broadcast(
                    factors[r, line], key_lanes
                ) * T.Cast(
                    f"float32x{key_lanes}",
                    pool[page, head, line, T.ramp(tile * width + part * key_lanes, 1, key_lanes)],
                )

    return add
