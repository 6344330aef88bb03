"""A linear layer of one row, over panels of integer weights, with integer activations.

It is bound by memory: each panel is read once from beginning to end, a group of 32 along K at a
time, and its levels are looked up in registers. A group's int32 sums are multiplied with its weight
scale and accumulated in float32; after all groups that share an activation scale, that sum is
multiplied with it. Scales of whole rows of weights are applied in the epilogue. These are the
operations of `panel_gemm`, in the same order.

Threads share the panels, so that each reads a contiguous piece of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import QuantizedLinearSignature
from mvlm.schedules.config_space import Config, default_config, divisors
from mvlm.schedules.cpu.dynamic_parallel import panel_loop
from mvlm.schedules.cpu.instructions import InstructionSet, find_instructions
from mvlm.schedules.cpu.panel_product import PanelProduct
from mvlm.schedules.cpu.panels import FEATURES, panel_count, panel_layout
from mvlm.schedules.cpu.vectors import LINE_BYTES, prefetch_line
from mvlm.schedules.epilogue import Epilogue

# Registers of a panel's features whose levels are looked up at once. The panel's others are read
# next, from the first-level cache: with the indices of four, LLVM runs out of Armv8's registers.
_PACKED_PARTS = 2
# By default tiles have several panels, and are prefetched, where registers have as many lanes.
STREAMING_LANES, PREFETCH_BYTES = 8, 512
PREFETCH_VALUES = (0, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class GemvTile:
    """The tile of one row's product, which is bound by memory.

    Attributes:
        panels: Panels of a register tile.
        prefetch_distance: Of weights, in bytes; 0 disables prefetching.
    """

    panels: int
    prefetch_distance: int

    @classmethod
    def choose(cls, op: QuantizedLinearSignature, lanes: int, knob: Config) -> GemvTile:
        """Read the knobs of a linear layer of one row.

        Args:
            op: The layer.
            lanes: Features of a register.
            knob: The configuration.
        """
        tiles = divisors(panel_count(op.features), (1, 2, 4))
        # Four streams, each read ahead of, hide more of the memory's latency than the hardware
        # prefetcher does for one. Fewer lanes take more registers for the sums: not measured.
        has_streams = lanes >= STREAMING_LANES
        return cls(
            panels=knob("tile_panels", tiles[-1] if has_streams else 1, tiles),
            prefetch_distance=knob(
                "prefetch_distance",
                PREFETCH_BYTES if has_streams else 0,
                PREFETCH_VALUES,
            ),
        )


def panel_gemv(
    op: QuantizedLinearSignature,
    knob: Config = default_config,
    instructions: InstructionSet | None = None,
) -> tirx.PrimFunc | None:
    """Build the kernel for one row, for the target's instruction set or a given one."""
    if not op.is_single_row:
        return None
    isa = instructions or find_instructions(Target.current(allow_none=False))
    product, layout = PanelProduct(op, isa), panel_layout(op.weight_format)
    epilogue = Epilogue(op, FEATURES)
    tile, loop = GemvTile.choose(op, product.lanes, knob), panel_loop(op)
    lanes, parts, tile_panels = product.lanes, product.parts, tile.panels
    f32 = f"float32x{lanes}"
    parts_at_once = min(parts, _PACKED_PARTS) if product.is_packed else parts
    group_bytes = layout.steps * layout.step * np.dtype(layout.dtype).itemsize
    prefetch = prefetch_ahead(tile.prefetch_distance, group_bytes)

    def dot(
        sums: tirx.Expr,
        buffers: tuple[tirx.Buffer, ...],
        place: tuple[tirx.Expr, ...],
        at: int,
    ) -> tirx.Expr:
        """Add the products of a set of steps to a register."""
        (x, weight, tables), (p, panel, group, part) = buffers, place
        table = tables[p, T.ramp(0, 1, product.register_weights)]
        steps = [
            (step, product.weights(weight, table, panel, group, part, step))
            for step in product.step_sets[at]
        ]
        return product.dot(sums, steps, x, 0, group)

    panels = panel_count(op.features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        x_scale_handle: T.handle,
        correction_handle: T.handle,
        halves_handle: T.handle,
        offset_sum_handle: T.handle,
        weight_handle: T.handle,
        scale_handle: T.handle,
        row_scale_handle: T.handle,
        level_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        x = T.match_buffer(x_handle, (1, op.width), layout.activations)
        x_scales = T.match_buffer(x_scale_handle, (1, op.activation_scales), "float32")
        zero_point_correction = T.match_buffer(correction_handle, (1, op.groups), "int32")
        zero_point_halves = T.match_buffer(halves_handle, (1, op.groups, 2), "int16")
        offset_sums = T.match_buffer(offset_sum_handle, (1, op.groups), "float32")
        weight = T.match_buffer(
            weight_handle, (panels, op.groups, layout.steps, layout.step), layout.dtype
        )
        scales = T.match_buffer(scale_handle, (panels, op.groups, FEATURES), layout.scale_dtype)
        row_scales = T.match_buffer(row_scale_handle, (panels, FEATURES), "float32")
        levels = T.match_buffer(level_handle, (panels, FEATURES), "int8")
        bias = T.match_buffer(bias_handle, (op.features,), "float32")
        residual = T.match_buffer(residual_handle, (1, op.features), "float32")
        y = T.match_buffer(y_handle, (1, op.features), "float32")
        for task in loop(panels // tile_panels):
            with T.sblock("tile"):
                # Read and written by whole registers only: LLVM would keep them in memory.
                acc_f32 = T.sblock_alloc_buffer(
                    (tile_panels, parts, lanes), "float32", scope="local"
                )
                acc_block = T.sblock_alloc_buffer(
                    (tile_panels, parts, lanes), "float32", scope="local"
                )
                acc_i32 = T.sblock_alloc_buffer((parts, lanes), "int32", scope="local")
                sums = T.sblock_alloc_buffer((tile_panels, FEATURES), "float32", scope="local")
                tables = T.sblock_alloc_buffer(
                    (tile_panels, product.register_weights), "uint8", scope="local"
                )

                @T.inline
                def load_tables():
                    if product.is_packed:
                        for p in T.unroll(tile_panels):
                            tables[p, T.ramp(0, 1, product.register_weights)] = product.table(
                                levels, task * tile_panels + p
                            )

                @T.inline
                def zero(acc):
                    for p in T.unroll(tile_panels):
                        for part in T.unroll(parts):
                            for c in T.vectorized(lanes):
                                acc[p, part, c] = T.float32(0)

                @T.inline
                def add_scaled(value, p, g, part):
                    """Add a value times a group's scale to the sum of the block."""
                    panel = T.meta_var(task * tile_panels + p)
                    scale = T.meta_var(product.scale(scales, panel, g, part))
                    acc_block[p, part, T.ramp(0, 1, lanes)] = T.fma(
                        value, scale, acc_block[p, part, T.ramp(0, 1, lanes)]
                    )

                @T.inline
                def dot_steps(p, g, first_part, at):
                    """Multiply the sets of steps from the one at an index on."""
                    panel = T.meta_var(task * tile_panels + p)
                    for t in T.unroll(parts_at_once):
                        part = T.meta_var(first_part + t)
                        acc_i32[part, T.ramp(0, 1, lanes)] = dot(
                            acc_i32[part, T.ramp(0, 1, lanes)],
                            (x, weight, tables),
                            (p, panel, g, part),
                            at,
                        )
                    if at + 1 < len(product.step_sets):
                        dot_steps(p, g, first_part, at + 1)

                @T.inline
                def dot_group(p, g, first_part):
                    panel = T.meta_var(task * tile_panels + p)
                    for t in T.unroll(parts_at_once):
                        part = T.meta_var(first_part + t)
                        acc_i32[part, T.ramp(0, 1, lanes)] = T.broadcast(
                            product.initial_sums(zero_point_correction, zero_point_halves, 0, g),
                            lanes,
                        )
                    dot_steps(p, g, first_part, 0)
                    for t in T.unroll(parts_at_once):
                        part = T.meta_var(first_part + t)
                        total = T.meta_var(
                            T.Cast(f32, product.completed(acc_i32[part, T.ramp(0, 1, lanes)]))
                        )
                        if product.folds_offsets:
                            steps = T.meta_var(product.offset_steps(scales, panel, g, part))
                            offset_sum = T.meta_var(T.broadcast(offset_sums[0, g], lanes))
                            add_scaled(total + steps * offset_sum, p, g, part)
                        else:
                            add_scaled(total, p, g, part)

                @T.inline
                def add_offsets(s):
                    """Add the products of offsets after all others, as `panel_gemm` does."""
                    for g in T.serial(op.groups_per_scale):
                        group = T.meta_var(s * op.groups_per_scale + g)
                        for p in T.unroll(tile_panels):
                            for part in T.unroll(parts):
                                panel = T.meta_var(task * tile_panels + p)
                                steps = T.meta_var(product.offset_steps(scales, panel, group, part))
                                offset_sum = T.meta_var(T.broadcast(offset_sums[0, group], lanes))
                                add_scaled(steps * offset_sum, p, group, part)

                @T.inline
                def scale_accumulate(s):
                    x_scale = T.meta_var(x_scales[0, s] * T.float32(layout.unit))
                    for p in T.unroll(tile_panels):
                        for part in T.unroll(parts):
                            for c in T.vectorized(lanes):
                                acc_f32[p, part, c] = T.fma(
                                    acc_block[p, part, c], x_scale, acc_f32[p, part, c]
                                )

                @T.inline
                def store(p):
                    panel = T.meta_var(task * tile_panels + p)
                    for part in T.unroll(parts):
                        for c in T.vectorized(lanes):
                            sums[p, part * lanes + c] = acc_f32[p, part, c]
                    for c in epilogue.columns(FEATURES):
                        j = T.meta_var(panel * FEATURES + c)
                        factor = T.meta_var(row_scales[panel, c] if layout.has_tables else None)
                        if epilogue.is_feature(j):
                            y[0, j] = epilogue.value(sums[p, c], bias, residual, (0, j), factor)

                load_tables()
                zero(acc_f32)
                for s in T.serial(op.activation_scales):
                    zero(acc_block)
                    for half in T.unroll(parts // parts_at_once):
                        for g in T.serial(op.groups_per_scale):
                            group = T.meta_var(s * op.groups_per_scale + g)
                            for p in T.unroll(tile_panels):
                                if half == 0:
                                    prefetch(weight, task * tile_panels + p, group)
                                dot_group(p, group, half * parts_at_once)
                    if product.adds_offsets:
                        add_offsets(s)
                    scale_accumulate(s)
                for p in T.unroll(tile_panels):
                    store(p)

    return keep_parameters(kernel, op)


def prefetch_ahead(distance: int, block_bytes: int) -> Any:
    """Return an inline function that prefetches the block of a matrix at some distance.

    It takes the matrix ``(panels, blocks, ...)`` and the panel and index of a block. The next panel
    follows the end of a panel; prefetching past the end of the matrix is harmless.

    Args:
        distance: In bytes; 0 disables prefetching.
        block_bytes: Bytes of a block.
    """
    blocks = max(1, distance // block_bytes)
    lines = -(-block_bytes // LINE_BYTES) if distance else 0

    @T.inline
    def prefetch(matrix: tirx.Buffer, panel: tirx.Expr, block: tirx.Expr) -> None:
        inner = T.meta_var(int(matrix.shape[-1]))
        line_elements = T.meta_var(LINE_BYTES // np.dtype(str(matrix.dtype)).itemsize)
        for line in T.unroll(lines):
            T.evaluate(
                prefetch_line(
                    matrix[
                        panel,
                        block + blocks,
                        line * line_elements // inner,
                        line * line_elements % inner,
                    ]
                )
            )

    return prefetch
