"""Causal attention over the KV cache on a CPU, with an online softmax over the pages of a head.

A block of queries of one head iterates over the pages: scores, vectorized over positions; the
running maximum `row_max`, by which the accumulated values are rescaled when it grows; the weighted
sum of the values, vectorized over channels (the online softmax of FlashAttention, arXiv 2205.14135,
section 3.1). A block reads each page once, and no buffer grows with the context.

One token has a block of one query, with larger tiles of positions and channels instead. Either way
a query's scores and sums are added in the same order.

The rows of a call form runs: consecutive positions of one sequence. Threads share the heads of all
runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import CachedAttentionSignature
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.dynamic_parallel import loop_of
from mvlm.schedules.cpu.exponential import LOG2_E, exp2
from mvlm.schedules.cpu.rotation import rotate_into
from mvlm.schedules.cpu.vectors import (
    LINE_BYTES,
    QUERY_TILE_M_VALUES,
    default_tile_m,
    lanes,
    prefetch_line,
    tile_width,
)

_TILE_N = 16
# A single query needs larger tiles: enough independent additions to hide their latency.
_TILE_N_OF_ONE_ROW = 80
# With fewer channels in all, one token's attention ends before another thread has woken up; that of
# few tokens with a quarter.
_SERIAL_CHANNELS = 1024
# Of the online softmax: the row's new maximum, and the factor that rescales what is accumulated.
_M_NEW, _ALPHA = 0, 1
_KEY_SCALES, _VALUE_SCALES = 0, 1


@dataclass(frozen=True)
class AttentionTile:
    """How much of a page is in registers at once.

    Attributes:
        rows: Queries of a block.
        positions: Positions whose scores are accumulated at once.
        channels: Channels of the values that are accumulated at once.
        prefetches: Whether the next block is prefetched while one is read: one token is bound by
            memory.
    """

    rows: int
    positions: int
    channels: int
    prefetches: bool

    @classmethod
    def of_one(cls, op: CachedAttentionSignature, knob: Config) -> AttentionTile:
        """Read the knobs of one query."""
        name = "tile_n" if op.is_single_row else "tile_n_of_one"
        most = knob(name, _TILE_N_OF_ONE_ROW, (16, 32, 64, 80, 128))
        prefetches = bool(knob("prefetch", 1, (0, 1)))
        widths = tile_width(op.page_size, most), tile_width(op.head_dim, most)
        return cls(1, *widths, prefetches)

    @classmethod
    def of_many(cls, op: CachedAttentionSignature, knob: Config) -> AttentionTile:
        """Read the knobs of a block of queries."""
        default = default_tile_m(Target.current(allow_none=False))
        rows = knob("tile_m", default, QUERY_TILE_M_VALUES)
        most = knob("tile_n", _TILE_N, (16, 32))
        return cls(rows, tile_width(op.page_size, most), tile_width(op.head_dim, most), False)


def cached_attention(
    op: CachedAttentionSignature, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Build the kernel of ``cached_attention``."""
    if op.head_dim % 2:
        return None
    heads, kv_heads, head_dim, page_size = op.heads, op.kv_heads, op.head_dim, op.page_size
    group_size, storage = heads // kv_heads, op.storage
    single = AttentionTile.of_one(op, knob)
    block = single if op.is_single_row else AttentionTile.of_many(op, knob)
    key_lanes, channel_lanes = lanes(page_size), lanes(head_dim)
    loop = loop_of(
        op,
        heads * head_dim,
        serial_of_one=_SERIAL_CHANNELS,
        serial_of_few=_SERIAL_CHANNELS // 4,
    )
    rotate = rotate_into(head_dim, scale=head_dim**-0.5 * LOG2_E)  # weights are powers of two

    def run_edges(symbol: tirx.Var) -> int | tirx.Var:
        """Return how many edges the runs have: one row is one run."""
        return op.rows + 1 if isinstance(op.rows, int) else symbol

    def key_part(tile: AttentionTile, at: Any, part: Any) -> tirx.Expr:
        """Return the positions of a register, within the tile `at` of a page."""
        return T.ramp(at * tile.positions + part * key_lanes, 1, key_lanes)

    def channel_part(tile: AttentionTile, at: Any, part: Any) -> tirx.Expr:
        """Return the channels of a register, within the tile `at` of a head."""
        return T.ramp(at * tile.channels + part * channel_lanes, 1, channel_lanes)

    def prefetch_of(tile: AttentionTile) -> tuple[Any, Any]:
        """Return what prefetches the values of a page, and the keys of the next."""
        of_values, of_keys = (
            (head_dim, page_size // tile.positions * (head_dim // channel_lanes)),
            (page_size, head_dim // tile.channels * (page_size // key_lanes)),
        )
        elements = page_size * head_dim
        return (
            prefetch_block(elements, *of_values, storage, tile.prefetches),
            prefetch_block(elements, *of_keys, storage, tile.prefetches),
        )

    prefetchers = {tile: prefetch_of(tile) for tile in (single, block)}

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        positions_handle: T.handle,
        page_starts_handle: T.handle,
        runs_handle: T.handle,
        page_indices_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
        out_handle: T.handle,
    ):
        rows, edges, num_blocks, pages = T.int64(), T.int64(), T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (rows, op.width, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (rows, head_dim // 2), "float32")
        sin = T.match_buffer(sin_handle, (rows, head_dim // 2), "float32")
        positions = T.match_buffer(positions_handle, (rows,), "int32")
        page_starts = T.match_buffer(page_starts_handle, (rows,), "int32")
        runs = T.match_buffer(runs_handle, (run_edges(edges),), "int32")
        page_indices = T.match_buffer(page_indices_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, page_size), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, page_size, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, page_size), "float32")
        out = T.match_buffer(out_handle, (rows, heads, head_dim), "float32")
        for task in loop(heads * (run_edges(edges) - 1)):
            h = T.meta_var(task % heads)
            kv_head = T.meta_var(h // group_size)
            first = T.meta_var(T.Cast("int64", runs[task // heads]))
            count = T.meta_var(T.Cast("int64", runs[task // heads + 1]) - first)
            start = T.meta_var(T.Cast("int64", positions[first]))
            page_start = T.meta_var(T.Cast("int64", page_starts[first]))

            @T.inline
            def attend(tile, at_row):
                """Attend from the rows of a tile, from a row of the run on."""
                with T.sblock("block"):
                    score_parts = T.meta_var(tile.positions // key_lanes)
                    value_parts = T.meta_var(tile.channels // channel_lanes)
                    query = T.sblock_alloc_buffer((tile.rows, head_dim), "float32")
                    scores = T.sblock_alloc_buffer((tile.rows, page_size), "float32")
                    o_acc = T.sblock_alloc_buffer((tile.rows, head_dim), "float32")
                    # Read and written by whole registers only: LLVM would keep them in memory.
                    score_acc = T.sblock_alloc_buffer(
                        (tile.rows, score_parts, key_lanes), "float32", scope="local"
                    )
                    value_acc = T.sblock_alloc_buffer(
                        (tile.rows, value_parts, channel_lanes), "float32", scope="local"
                    )
                    lane = T.sblock_alloc_buffer((key_lanes,), "float32", scope="local")
                    row_max = T.sblock_alloc_buffer((tile.rows,), "float32")
                    row_sum = T.sblock_alloc_buffer((tile.rows,), "float32")
                    online = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    # Positions up to the tile's last row, clipped to the run's end.
                    kv_len = T.meta_var(start + T.min(at_row + tile.rows, count))

                    @T.inline
                    def load_query(r):
                        i: T.let = first + T.min(at_row + r, count - 1)
                        rotate(query, r, qkv, cos, sin, i, h)
                        row_max[r] = T.min_value("float32")
                        row_sum[r] = T.float32(0)
                        for d in T.serial(head_dim):
                            o_acc[r, d] = T.float32(0)

                    @T.inline
                    def score_keys(page, at):
                        for r in T.unroll(tile.rows):
                            for part in T.unroll(score_parts):
                                score_acc[r, part, T.ramp(0, 1, key_lanes)] = T.broadcast(
                                    T.float32(0), key_lanes
                                )
                        for outer in T.serial(head_dim // channel_lanes):
                            step = T.meta_var(at * (head_dim // channel_lanes) + outer)
                            prefetchers[tile][0](values, page, kv_head, step)
                            for inner in T.serial(channel_lanes):
                                d = T.meta_var(outer * channel_lanes + inner)
                                for part in T.unroll(score_parts):
                                    for r in T.unroll(tile.rows):
                                        score_acc[r, part, T.ramp(0, 1, key_lanes)] = T.fma(
                                            T.broadcast(query[r, d], key_lanes),
                                            T.Cast(
                                                f"float32x{key_lanes}",
                                                keys[page, kv_head, d, key_part(tile, at, part)],
                                            ),
                                            score_acc[r, part, T.ramp(0, 1, key_lanes)],
                                        )
                        for r in T.unroll(tile.rows):
                            for part in T.unroll(score_parts):
                                scores[r, key_part(tile, at, part)] = score_acc[
                                    r, part, T.ramp(0, 1, key_lanes)
                                ]

                    @T.inline
                    def mask_scores(r, p, page):
                        """Scale and mask a row's scores, and find the new maximum."""
                        # The row's position, counted from the page's first.
                        last: T.let = T.Cast(
                            "int32", start + T.min(at_row + r, count - 1) - p * page_size
                        )
                        for c in T.vectorized(key_lanes):
                            lane[c] = row_max[r]
                        for part in T.serial(page_size // key_lanes):
                            for c in T.vectorized(key_lanes):
                                j = T.meta_var(part * key_lanes + c)
                                if op.has_scales:
                                    scores[r, j] *= scales[page, kv_head, _KEY_SCALES, j]
                                # Positions behind the last may hold anything, NaN included.
                                scores[r, j] = T.Select(
                                    T.Cast("int32", j) <= last,
                                    scores[r, j],
                                    T.min_value("float32"),
                                )
                                lane[c] = T.max(lane[c], scores[r, j])
                        online[_M_NEW] = lane[0]
                        for c in T.serial(key_lanes):
                            online[_M_NEW] = T.max(online[_M_NEW], lane[c])

                    @T.inline
                    def online_softmax(r, p, page):
                        mask_scores(r, p, page)
                        online[_ALPHA] = exp2(row_max[r] - online[_M_NEW])
                        row_max[r] = online[_M_NEW]
                        for c in T.vectorized(key_lanes):
                            lane[c] = T.float32(0)
                        for part in T.serial(page_size // key_lanes):
                            for c in T.vectorized(key_lanes):
                                j = T.meta_var(part * key_lanes + c)
                                scores[r, j] = exp2(scores[r, j] - online[_M_NEW])
                                lane[c] += scores[r, j]
                                if op.has_scales:
                                    scores[r, j] *= scales[page, kv_head, _VALUE_SCALES, j]
                        # LLVM would round the product in some of the kernels, and not in others.
                        row_sum[r] = T.fma(row_sum[r], online[_ALPHA], lane[0])
                        for c in T.serial(key_lanes - 1):
                            row_sum[r] += lane[c + 1]
                        for d in T.serial(head_dim):
                            o_acc[r, d] *= online[_ALPHA]

                    @T.inline
                    def accumulate_values(p, page, at):
                        # The next head's first page comes after the last one.
                        is_last = T.meta_var((p + 1) * page_size >= kv_len)
                        next_page: T.let = T.Cast(
                            "int64",
                            page_indices[page_start + T.Select(is_last, T.int64(0), p + 1)],
                        )
                        next_head: T.let = (
                            T.Select(is_last, T.min(h + 1, heads - 1), h) // group_size
                        )
                        held = T.meta_var(T.min(page_size, kv_len - p * page_size))
                        for r in T.unroll(tile.rows):
                            for part in T.unroll(value_parts):
                                value_acc[r, part, T.ramp(0, 1, channel_lanes)] = o_acc[
                                    r, channel_part(tile, at, part)
                                ]
                        for outer in T.serial((held + key_lanes - 1) // key_lanes):
                            step = T.meta_var(at * (page_size // key_lanes) + outer)
                            prefetchers[tile][1](keys, next_page, next_head, step)
                            for inner in T.serial(T.min(key_lanes, held - outer * key_lanes)):
                                j = T.meta_var(outer * key_lanes + inner)
                                for part in T.unroll(value_parts):
                                    for r in T.unroll(tile.rows):
                                        value_acc[r, part, T.ramp(0, 1, channel_lanes)] = T.fma(
                                            T.broadcast(scores[r, j], channel_lanes),
                                            T.Cast(
                                                f"float32x{channel_lanes}",
                                                values[
                                                    page,
                                                    kv_head,
                                                    j,
                                                    channel_part(tile, at, part),
                                                ],
                                            ),
                                            value_acc[r, part, T.ramp(0, 1, channel_lanes)],
                                        )
                        for r in T.unroll(tile.rows):
                            for part in T.unroll(value_parts):
                                o_acc[r, channel_part(tile, at, part)] = value_acc[
                                    r, part, T.ramp(0, 1, channel_lanes)
                                ]

                    for r in T.serial(tile.rows):
                        load_query(r)
                    for p in T.serial((kv_len + page_size - 1) // page_size):
                        page: T.let = T.Cast("int64", page_indices[page_start + p])
                        for at in T.serial(page_size // tile.positions):
                            score_keys(page, at)
                        for r in T.serial(tile.rows):
                            online_softmax(r, p, page)
                        for at in T.serial(head_dim // tile.channels):
                            accumulate_values(p, page, at)
                    for r in T.serial(tile.rows):
                        if at_row + r < count:
                            for d in T.serial(head_dim):
                                out[first + at_row + r, h, d] = o_acc[r, d] / row_sum[r]

            if op.is_single_row:
                attend(single, T.int64(0))
            else:
                for number in T.serial((count + block.rows - 1) // block.rows):
                    # One token of a sequence, or a chunk's last row.
                    if count - number * block.rows == 1:
                        attend(single, number * block.rows)
                    else:
                        attend(block, number * block.rows)

    return keep_parameters(kernel, op)


def prefetch_block(elements: int, inner: int, steps: int, dtype: str, is_enabled: bool) -> Any:
    """Return an inline function that prefetches a block of a page, a part at every step of a loop.

    It takes the pool ``(pages, heads, elements / inner, inner)``, the
    page, the head, and the step.

    Args:
        elements: Of the block.
        inner: Of its last axis.
        steps: That the loop takes.
        dtype: Of an element.
        is_enabled: Whether anything is prefetched.
    """
    line_elements = LINE_BYTES // np.dtype(dtype).itemsize
    lines = -(-elements // line_elements // steps) if is_enabled else 0

    def place(step: tirx.Expr, line: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
        element = T.min((step * lines + line) * line_elements, elements - 1)
        return element // inner, element % inner

    @T.inline
    def prefetch(pool: tirx.Buffer, page: tirx.Expr, head: tirx.Expr, step: tirx.Expr) -> None:
        for line in T.unroll(lines):
            T.evaluate(prefetch_line(pool[page, head, place(step, line)[0], place(step, line)[1]]))

    return prefetch
