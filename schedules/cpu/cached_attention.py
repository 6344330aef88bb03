"""Causal attention over the KV cache on a CPU: a head's pages go by once, softmax on the way.

A block of queries of one head takes page after page: scores, vectorized over positions; the
largest so far, by which what has been summed is rescaled when it grows; the weighted sum of the
values, vectorized over channels (the online softmax of FlashAttention, arXiv 2205.14135,
section 3.1). A page is read once for a block, and nothing is kept that grows with the context.

One token has a block of one query, whose registers hold more positions and channels instead.
Heads are shared between the threads.
"""

from __future__ import annotations

from math import e, log2
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.exponential import exp2
from mvlm.schedules.cpu.prefetch import fetch_block
from mvlm.schedules.cpu.rotation import rotate_into
from mvlm.schedules.cpu.vectors import columns, lanes, rows_of_a_tile
from mvlm.schedules.signature import cache_types, keep_parameters

_COLUMNS = 16
_ROWS = (2, 3, 4, 6, 8, 10, 12, 16)
# A single query needs more columns, so that enough additions are in flight to hide their latency.
_COLUMNS_OF_ONE = 80
# One token's heads of fewer channels in all are attended to before another thread has woken up.
_ALONE_CHANNELS = 1024


def cached_attention(
    definition: tirx.PrimFunc, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Serve ``cached_attention``."""
    types = cache_types(definition)
    if types.head_dim % 2:
        return None
    kv_heads, head_dim, page_size = types.kv_heads, types.head_dim, types.page_size
    heads, half, storage = types.heads, types.head_dim // 2, types.storage
    group, has_scales = heads // kv_heads, types.has_scales
    if types.is_single_row:
        block_rows, most = 1, knob("columns", _COLUMNS_OF_ONE, (16, 32, 64, 80, 128))
        fetches = bool(knob("fetch", 1, (0, 1)))
        loop = T.serial if heads * head_dim < _ALONE_CHANNELS else T.parallel
    else:
        block_rows = knob("rows", rows_of_a_tile(Target.current(allow_none=False)), _ROWS)
        most, fetches, loop = knob("columns", _COLUMNS, (16, 32)), False, T.parallel
    tile, channels = columns(page_size, most), columns(head_dim, most)
    vector, wide = lanes(page_size), lanes(head_dim)
    add_scores = _multiply_add(block_rows, tile, vector)
    add_values = _multiply_add(block_rows, channels, wide)
    # One token has to wait for memory: the block that comes next is fetched while one is read.
    fetch_values, fetch_keys = (
        fetch_block(page_size * head_dim, inner, steps, types.storage, fetches)
        for inner, steps in (
            (head_dim, page_size // tile * (head_dim // wide)),
            (page_size, head_dim // channels * (page_size // vector)),
        )
    )
    rotate = rotate_into(head_dim, scale=head_dim**-0.5 * log2(e))  # weights are powers of two

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
        rows, span, pages = T.int64(), T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (rows, half), "float32")
        sin = T.match_buffer(sin_handle, (rows, half), "float32")
        start = T.match_buffer(start_handle, (1,), "int32")
        table = T.match_buffer(table_handle, (span,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, page_size), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, page_size, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, page_size), "float32")
        out = T.match_buffer(out_handle, (rows, heads, head_dim), "float32")
        for h in loop(heads):
            for block in T.serial((rows + block_rows - 1) // block_rows):
                with T.sblock("block"):
                    query = T.sblock_alloc_buffer((block_rows, head_dim), "float32")
                    scores = T.sblock_alloc_buffer((block_rows, page_size), "float32")
                    mixed = T.sblock_alloc_buffer((block_rows, head_dim), "float32")
                    # Read and written by whole registers only: LLVM would keep them in memory.
                    acc = T.sblock_alloc_buffer(
                        (block_rows, tile // vector, vector), "float32", scope="local"
                    )
                    sums = T.sblock_alloc_buffer(
                        (block_rows, channels // wide, wide), "float32", scope="local"
                    )
                    lane = T.sblock_alloc_buffer((vector,), "float32", scope="local")
                    largest = T.sblock_alloc_buffer((block_rows,), "float32")
                    total = T.sblock_alloc_buffer((block_rows,), "float32")
                    news = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    # What the block's rows see: all up to its last row, which may be past the end.
                    seen = T.meta_var(
                        T.Cast("int64", start[0]) + T.min((block + 1) * block_rows, rows)
                    )
                    for r in T.serial(block_rows):
                        i: T.let = T.min(block * block_rows + r, rows - 1)
                        rotate(query, r, qkv, cos, sin, i, h)
                        largest[r] = T.min_value("float32")
                        total[r] = T.float32(0)
                        for d in T.serial(head_dim):
                            mixed[r, d] = T.float32(0)
                    for p in T.serial((seen + page_size - 1) // page_size):
                        page: T.let = T.Cast("int64", table[p])
                        # The next head's first page comes after the last one.
                        is_last = T.meta_var((p + 1) * page_size >= seen)
                        following: T.let = T.Cast(
                            "int64", table[T.Select(is_last, T.int64(0), p + 1)]
                        )
                        next_head: T.let = T.Select(is_last, T.min(h + 1, heads - 1), h) // group
                        for column in T.serial(page_size // tile):
                            for r in T.unroll(block_rows):
                                for part in T.unroll(tile // vector):
                                    acc[r, part, T.ramp(0, 1, vector)] = T.broadcast(
                                        T.float32(0), vector
                                    )
                            for stretch in T.serial(head_dim // wide):
                                fetch_values(
                                    values,
                                    page,
                                    h // group,
                                    column * (head_dim // wide) + stretch,
                                )
                                for step in T.serial(wide):
                                    add_scores(
                                        acc,
                                        query,
                                        keys,
                                        page,
                                        h // group,
                                        stretch * wide + step,
                                        column,
                                    )
                            for r in T.unroll(block_rows):
                                for part in T.unroll(tile // vector):
                                    scores[r, T.ramp(column * tile + part * vector, 1, vector)] = (
                                        acc[r, part, T.ramp(0, 1, vector)]
                                    )
                        for r in T.serial(block_rows):
                            # The row's last position, counted from the page's first.
                            last: T.let = T.Cast(
                                "int32",
                                T.Cast("int64", start[0])
                                + T.min(block * block_rows + r, rows - 1)
                                - p * page_size,
                            )
                            for c in T.vectorized(vector):
                                lane[c] = largest[r]
                            for part in T.serial(page_size // vector):
                                for c in T.vectorized(vector):
                                    if has_scales:
                                        scores[r, part * vector + c] *= scales[
                                            page, h // group, 0, part * vector + c
                                        ]
                                    # What lies behind the last may be anything, NaN included.
                                    scores[r, part * vector + c] = T.Select(
                                        T.Cast("int32", part * vector + c) <= last,
                                        scores[r, part * vector + c],
                                        T.min_value("float32"),
                                    )
                                    lane[c] = T.max(lane[c], scores[r, part * vector + c])
                            news[0] = lane[0]
                            for c in T.serial(vector):
                                news[0] = T.max(news[0], lane[c])
                            news[1] = exp2(largest[r] - news[0])
                            largest[r] = news[0]
                            for c in T.vectorized(vector):
                                lane[c] = T.float32(0)
                            for part in T.serial(page_size // vector):
                                for c in T.vectorized(vector):
                                    scores[r, part * vector + c] = exp2(
                                        scores[r, part * vector + c] - news[0]
                                    )
                                    lane[c] += scores[r, part * vector + c]
                                    if has_scales:
                                        scores[r, part * vector + c] *= scales[
                                            page, h // group, 1, part * vector + c
                                        ]
                            total[r] = total[r] * news[1]
                            for c in T.serial(vector):
                                total[r] += lane[c]
                            for d in T.serial(head_dim):
                                mixed[r, d] *= news[1]
                        for column in T.serial(head_dim // channels):
                            for r in T.unroll(block_rows):
                                for part in T.unroll(channels // wide):
                                    sums[r, part, T.ramp(0, 1, wide)] = mixed[
                                        r, T.ramp(column * channels + part * wide, 1, wide)
                                    ]
                            count = T.meta_var(T.min(page_size, seen - p * page_size))
                            for stretch in T.serial((count + vector - 1) // vector):
                                fetch_keys(
                                    keys,
                                    following,
                                    next_head,
                                    column * (page_size // vector) + stretch,
                                )
                                for step in T.serial(T.min(vector, count - stretch * vector)):
                                    add_values(
                                        sums,
                                        scores,
                                        values,
                                        page,
                                        h // group,
                                        stretch * vector + step,
                                        column,
                                    )
                            for r in T.unroll(block_rows):
                                for part in T.unroll(channels // wide):
                                    mixed[r, T.ramp(column * channels + part * wide, 1, wide)] = (
                                        sums[r, part, T.ramp(0, 1, wide)]
                                    )
                    for r in T.serial(block_rows):
                        if block * block_rows + r < rows:
                            for d in T.serial(head_dim):
                                out[block * block_rows + r, h, d] = mixed[r, d] / total[r]

    return keep_parameters(kernel, (*[True] * 7, has_scales, True))


def _multiply_add(rows: int, width: int, vector: int) -> Any:
    """Return what multiplies a line of a page with each row's factor and adds it to its sums.

    A part of a kernel, to be called with the sums ``(rows, width / vector, vector)``, the factors
    ``(rows, lines)``, the pool, the page, the head, the line, and which `width` of it.
    """

    @T.inline
    def add(
        sums: tirx.Buffer,
        factors: tirx.Buffer,
        pool: tirx.Buffer,
        page: tirx.Expr,
        head: tirx.Expr,
        line: tirx.Expr,
        column: tirx.Expr,
    ) -> None:
        for part in T.unroll(width // vector):
            for r in T.unroll(rows):
                sums[r, part, T.ramp(0, 1, vector)] += T.broadcast(
                    factors[r, line], vector
                ) * T.Cast(
                    f"float32x{vector}",
                    pool[page, head, line, T.ramp(column * width + part * vector, 1, vector)],
                )

    return add
