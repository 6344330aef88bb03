"""Linear layers over panels of integer weights, with integer activations (see `models.panels`).

A register tile of some rows and one panel, 16 features, is accumulated while the panel is read once
from beginning to end, a group of 32 along K at a time. The group's quantized values are unpacked,
multiplied with four activations of each row a step, and accumulated in int32, which is exact: 32
products of 255 and 127 come to a million. The int32 sum is multiplied with the group's weight scale
and accumulated in float32; after all groups that share an activation scale, that sum is multiplied
with the activation scale. Scales of whole rows of weights are applied in the epilogue.

With many rows, each panel's nibbles are unpacked once, to bytes that stay in cache. A panel may be
multiplied in blocks along K, each with all rows before the next one, so that less has to stay in
cache; partial sums are then stored in the output.

Threads share the panels, so that each reads a contiguous piece of memory. A row block that is not
full computes its last row again instead of branching in the inner loop, and does not store it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import PanelLinearSignature
from mvlm.models.panels import FEATURES
from mvlm.models.quantization import GROUP_SIZE
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.instructions import InstructionSet, find_instructions
from mvlm.schedules.cpu.linear import panel_loop, store_panel
from mvlm.schedules.cpu.panel_tiling import gemm_tiling, gemv_tiling
from mvlm.schedules.cpu.prefetch import prefetch_ahead


def panel_linear(
    op: PanelLinearSignature,
    knob: Config = default_config,
    instructions: InstructionSet | None = None,
) -> tirx.PrimFunc:
    """Build the kernel of ``panel_linear``, for the target's instruction set or a given one."""
    isa = instructions or find_instructions(Target.current(allow_none=False))
    layout = op.layout
    bits, depth, steps, step_width = layout.bits, layout.depth, layout.steps, layout.step
    unit, weight_dtype, x_dtype = layout.unit, layout.dtype, layout.activations
    has_zero_point, has_row_scales = op.has_zero_point, layout.has_row_scales
    panels, features, groups, scale_dtype = op.panels, op.features, op.groups, layout.scale_dtype
    activation_scales, groups_per_scale = op.activation_scales, op.groups_per_scale
    lanes = isa.lanes
    parts, group_steps = FEATURES // lanes, GROUP_SIZE // depth
    if op.is_single_row:
        tiling = gemv_tiling(panels, group_steps, activation_scales, knob)
    else:
        can_store_partial = features % FEATURES == 0
        tiling = gemm_tiling(
            panels, group_steps, activation_scales, bits, can_store_partial, isa, knob
        )
    tile_m, tile_panels, unpack_once = tiling.tile_m, tiling.tile_panels, tiling.unpack_once
    stages, tiles_per_task = group_steps // tiling.k_unroll, tiling.tiles_per_task
    k_blocks, block_groups = activation_scales // tiling.k_block, tiling.k_block * groups_per_scale
    acc_starts_at_zero = not has_zero_point or (bits == 8 and isa.is_signed)
    store, loop = store_panel(op), panel_loop(op)
    prefetch = prefetch_ahead(
        tiling.prefetch_distance, steps * step_width * np.dtype(weight_dtype).itemsize
    )

    def quantized(
        weights: tirx.Buffer, unpacked: tirx.Buffer, place: tuple[tirx.Expr, ...], step: Any
    ) -> tirx.Expr:
        """Read a step's quantized values, for the features of one register."""
        panel, group, part, s = place
        ramp = T.ramp(part * depth * lanes, 1, depth * lanes)
        if unpack_once:
            return unpacked[s, group % block_groups, step, ramp]
        stored = weights[panel, group, step % steps, ramp]
        if bits != 4:
            return stored
        if step < steps:
            return stored & T.broadcast(T.uint8(15), depth * lanes)
        return stored >> T.broadcast(T.uint8(4), depth * lanes)

    def dot(
        sums: tirx.Expr,
        weights: tirx.Buffer,
        unpacked: tirx.Buffer,
        x: tirx.Buffer,
        row: tirx.Expr,
        place: tuple[tirx.Expr, ...],
        stage: tirx.Expr,
    ) -> tirx.Expr:
        """Accumulate the products of a group's stage, for the features of one register."""
        group = place[1]
        # Both nibbles of a byte one after the other: fewer bytes occupy registers.
        halves = group_steps // steps
        order = [half * steps + step for step in range(steps) for half in range(halves)]
        if stages > 1:
            order = [stage * tiling.k_unroll + step for step in range(tiling.k_unroll)]
        step_weights = [(step, quantized(weights, unpacked, place, step)) for step in order]

        def activations(first: int, count: int) -> tirx.Expr:
            read = x[row, T.ramp(group * GROUP_SIZE + depth * first, 1, depth * count)]
            return T.reinterpret("int32" if count == 1 else f"int32x{count}", read)

        return isa.dot(sums, step_weights, activations, bits)

    @T.inline
    def unpack_panels(
        unpacked: tirx.Buffer, weights: tirx.Buffer, first: tirx.Expr, kb: tirx.Expr
    ) -> None:
        """Unpack the nibbles of a tile's panels, of one block along K."""
        for s in T.serial(tile_panels):
            for group in T.serial(block_groups):
                for step in T.unroll(steps):
                    for b in T.vectorized(step_width):
                        unpacked[s, group, step, b] = T.bitwise_and(
                            weights[first + s, kb * block_groups + group, step, b], T.uint8(15)
                        )
                        unpacked[s, group, steps + step, b] = T.shift_right(
                            weights[first + s, kb * block_groups + group, step, b], T.uint8(4)
                        )

    @T.inline
    def init_acc(
        acc_f32: tirx.Buffer,
        y: tirx.Buffer,
        start: tirx.Expr,
        rows: tirx.Expr,
        first: tirx.Expr,
        kb: tirx.Expr,
    ) -> None:
        """Initialize a tile's accumulators: with zeros, or with the partial sums of the output."""
        for r in T.unroll(tile_m):
            for s in T.unroll(tile_panels):
                for part in T.unroll(parts):
                    for c in T.vectorized(lanes):
                        acc_f32[r, s, part, c] = T.float32(0)
        if k_blocks > 1:  # noqa: SIM102  # known while the kernel is built; the other is not
            if kb > 0:
                for r in T.unroll(tile_m):
                    for s in T.unroll(tile_panels):
                        for part in T.unroll(parts):
                            for c in T.vectorized(lanes):
                                acc_f32[r, s, part, c] = y[
                                    T.min(start + r, rows - 1),
                                    (first + s) * FEATURES + part * lanes + c,
                                ]

    @T.inline
    def dot_group(
        acc_block: tirx.Buffer,
        acc_i32: tirx.Buffer,
        x: tirx.Buffer,
        zero_point_correction: tirx.Buffer,
        weights: tirx.Buffer,
        unpacked: tirx.Buffer,
        scales: tirx.Buffer,
        start: tirx.Expr,
        rows: tirx.Expr,
        panel: tirx.Expr,
        group: tirx.Expr,
        part: tirx.Expr,
        s: tirx.Expr,
    ) -> None:
        """Accumulate the scaled products of a group, for the features of one register."""
        scale = T.meta_var(
            T.Cast(f"float32x{lanes}", scales[panel, group, T.ramp(part * lanes, 1, lanes)])
        )
        for r in T.unroll(tile_m):
            acc_i32[r, T.ramp(0, 1, lanes)] = T.broadcast(
                T.int32(0)
                if acc_starts_at_zero
                else zero_point_correction[T.min(start + r, rows - 1), group],
                lanes,
            )
        # Interleave rows after some steps, to hide the latency of a row's dependent additions.
        for stage in T.unroll(stages):
            for r in T.unroll(tile_m):
                acc_i32[r, T.ramp(0, 1, lanes)] = dot(
                    acc_i32[r, T.ramp(0, 1, lanes)],
                    weights,
                    unpacked,
                    x,
                    T.min(start + r, rows - 1),
                    (panel, group, part, s),
                    stage,
                )
        for r in T.unroll(tile_m):
            acc_block[r, s, part, T.ramp(0, 1, lanes)] += (
                T.Cast(f"float32x{lanes}", acc_i32[r, T.ramp(0, 1, lanes)]) * scale
            )

    @T.inline
    def store_tile(
        y: tirx.Buffer,
        acc_f32: tirx.Buffer,
        row_scales: tirx.Buffer,
        bias: tirx.Buffer,
        residual: tirx.Buffer,
        start: tirx.Expr,
        rows: tirx.Expr,
        first: tirx.Expr,
    ) -> None:
        """Scale a tile by rows of weights, apply the epilogue, and store it."""
        with T.sblock("end"):
            sums = T.sblock_alloc_buffer((tile_m * tile_panels, FEATURES), "float32", scope="local")
            for r in T.unroll(tile_m):
                for s in T.unroll(tile_panels):
                    for part in T.unroll(parts):
                        for c in T.vectorized(lanes):
                            sums[r * tile_panels + s, part * lanes + c] = acc_f32[r, s, part, c] * (
                                row_scales[first + s, part * lanes + c]
                                if has_row_scales
                                else T.float32(1)
                            )
                    if start + r < rows:
                        store(y, sums, bias, residual, start + r, first + s, r * tile_panels + s)

    @T.inline
    def store_partial(
        y: tirx.Buffer, acc_f32: tirx.Buffer, start: tirx.Expr, rows: tirx.Expr, first: tirx.Expr
    ) -> None:
        """Store a tile's partial sums in the output, for the next block along K."""
        for r in T.unroll(tile_m):
            if start + r < rows:
                for s in T.unroll(tile_panels):
                    for part in T.unroll(parts):
                        for c in T.vectorized(lanes):
                            y[start + r, (first + s) * FEATURES + part * lanes + c] = acc_f32[
                                r, s, part, c
                            ]

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        x_scale_handle: T.handle,
        correction_handle: T.handle,
        weight_handle: T.handle,
        scale_handle: T.handle,
        row_scale_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, groups * GROUP_SIZE), x_dtype)
        x_scales = T.match_buffer(x_scale_handle, (rows, activation_scales), "float32")
        zero_point_correction = T.match_buffer(correction_handle, (rows, groups), "int32")
        weight = T.match_buffer(weight_handle, (panels, groups, steps, step_width), weight_dtype)
        scales = T.match_buffer(scale_handle, (panels, groups, FEATURES), scale_dtype)
        row_scales = T.match_buffer(row_scale_handle, (panels, FEATURES), "float32")
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for task in loop(panels // (tile_panels * tiles_per_task)):
            with T.sblock("task"):
                unpacked = T.sblock_alloc_buffer(
                    (tile_panels, block_groups if unpack_once else 1, 2 * steps, step_width),
                    "uint8",
                )
                for kb in T.serial(k_blocks):
                    for tile in T.serial(tiles_per_task):
                        first = T.meta_var((task * tiles_per_task + tile) * tile_panels)
                        if unpack_once:
                            unpack_panels(unpacked, weight, first, kb)
                        for block in T.serial((rows + tile_m - 1) // tile_m):
                            start = T.meta_var(block * tile_m)
                            with T.sblock("tile"):
                                # Read and written by whole registers only: LLVM would keep it in
                                # memory.
                                acc_f32 = T.sblock_alloc_buffer(
                                    (tile_m, tile_panels, parts, lanes), "float32", scope="local"
                                )
                                acc_block = T.sblock_alloc_buffer(
                                    (tile_m, tile_panels, parts, lanes), "float32", scope="local"
                                )
                                acc_i32 = T.sblock_alloc_buffer(
                                    (tile_m, lanes), "int32", scope="local"
                                )
                                init_acc(acc_f32, y, start, rows, first, kb)
                                for scale_in_block in T.serial(tiling.k_block):
                                    scale_index = T.meta_var(kb * tiling.k_block + scale_in_block)
                                    for r in T.unroll(tile_m):
                                        for s in T.unroll(tile_panels):
                                            for part in T.unroll(parts):
                                                for c in T.vectorized(lanes):
                                                    acc_block[r, s, part, c] = T.float32(0)
                                    for g in T.serial(groups_per_scale):
                                        group = T.meta_var(scale_index * groups_per_scale + g)
                                        for s in T.unroll(tile_panels):
                                            prefetch(weight, first + s, group)
                                            for part in T.unroll(parts):
                                                dot_group(
                                                    acc_block,
                                                    acc_i32,
                                                    x,
                                                    zero_point_correction,
                                                    weight,
                                                    unpacked,
                                                    scales,
                                                    start,
                                                    rows,
                                                    first + s,
                                                    group,
                                                    part,
                                                    s,
                                                )
                                    for r in T.unroll(tile_m):
                                        row = T.meta_var(T.min(start + r, rows - 1))
                                        x_scale = T.meta_var(
                                            x_scales[row, scale_index] * T.float32(unit)
                                        )
                                        for s in T.unroll(tile_panels):
                                            for part in T.unroll(parts):
                                                for c in T.vectorized(lanes):
                                                    acc_f32[r, s, part, c] += (
                                                        acc_block[r, s, part, c] * x_scale
                                                    )
                                if k_blocks > 1:
                                    if kb < k_blocks - 1:
                                        store_partial(y, acc_f32, start, rows, first)
                                    else:
                                        store_tile(
                                            y,
                                            acc_f32,
                                            row_scales,
                                            bias,
                                            residual,
                                            start,
                                            rows,
                                            first,
                                        )
                                else:
                                    store_tile(
                                        y, acc_f32, row_scales, bias, residual, start, rows, first
                                    )

    return keep_parameters(kernel, op)
