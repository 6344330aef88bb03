"""A linear layer of many rows, over panels of integer weights, with integer activations.

It is bound by registers and caches. A register tile of some rows and panels is accumulated while
the panels are read from beginning to end, a group of 32 along K at a time (see `panel_product`). A
group's int32 sums are multiplied with its weight scale and accumulated in float32; after all groups
that share an activation scale, that sum is multiplied with it. Scales of whole rows of weights are
applied in the epilogue.

Each panel's levels are looked up once, to bytes that stay in cache. A panel may be multiplied in
blocks along K, each with all rows before the next one, so that less has to stay in cache; partial
sums are then stored in the output.

Threads share the panels. A block of rows that is not full computes its last row again instead of
branching in the inner loop, and does not store it.
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
from mvlm.schedules.cpu.panel_gemv import (
    PREFETCH_VALUES,
    STREAMING_LANES,
    prefetch_ahead,
)
from mvlm.schedules.cpu.panel_product import PanelProduct
from mvlm.schedules.cpu.panels import FEATURES, panel_count, panel_layout
from mvlm.schedules.epilogue import Epilogue

# Registers of so many lanes come in thirty-two.
_WIDE_LANES = 16
# Measured: few rows read fewer panels side by side than one row, each farther ahead.
_PREFETCH_BYTES = 4096


@dataclass(frozen=True)
class GemmTile:
    """The tile of many rows' product, which is bound by registers and caches.

    Attributes:
        rows: Rows of a register tile.
        panels: Panels of a register tile.
        k_unroll: Steps of a group that are unrolled for one row before the next row's.
        unpack_once: Whether levels are looked up once for all rows, not in every tile.
        tiles_per_task: Tiles of `panels` panels that a task computes in sequence.
        k_block: Size of a block along K, in activation scales.
        prefetch_distance: Of weights, in bytes; 0 disables prefetching.
        last_rows: Rows of another tile, of all the task's panels at once, for the last rows if they
            are no more than that; 0 without one.
    """

    rows: int
    panels: int
    k_unroll: int
    unpack_once: bool
    tiles_per_task: int
    k_block: int
    prefetch_distance: int = 0
    last_rows: int = 0

    @property
    def task_panels(self) -> int:
        """Panels of a task."""
        return self.panels * self.tiles_per_task

    @classmethod
    def of_few_rows(cls, product: PanelProduct, knob: Config) -> GemmTile:
        """Read the knobs of a linear layer of few rows: its weights are read once, as by one row.

        They are looked up in registers, for all rows of a tile, and prefetched.
        """
        op, has_streams = product.op, product.lanes >= STREAMING_LANES
        at_once = divisors(panel_count(op.features), (1, 2, 4))
        # Two tiles, where there are registers for one of twice the rows: up to four rows leave time
        # to wait for memory, and read two panels side by side.
        is_wide = product.lanes >= _WIDE_LANES
        return cls(
            rows=knob("tile_m", 8 if is_wide else 4, (4, 6, 8) if is_wide else (2, 3, 4, 6)),
            panels=1,
            k_unroll=product.group_steps,
            unpack_once=False,
            tiles_per_task=knob("tile_panels", min(2, at_once[-1]) if has_streams else 1, at_once),
            k_block=op.activation_scales,
            prefetch_distance=knob(
                "prefetch_distance", _PREFETCH_BYTES if has_streams else 0, PREFETCH_VALUES
            ),
            last_rows=knob("last_tile_m", 4 if is_wide else 2, (0, 2, 4) if is_wide else (0, 1, 2)),
        )

    @classmethod
    def choose(cls, product: PanelProduct, knob: Config) -> GemmTile:
        """Read the knobs of a linear layer of many rows."""
        op, isa, group_steps = product.op, product.isa, product.group_steps
        is_packed, activation_scales = product.is_packed, op.activation_scales
        panels = knob("tile_panels", 1, divisors(panel_count(op.features), (1, 2)))
        unpack_once = is_packed and bool(knob("unpack_once", 1, (0, 1)))
        most_steps = min(isa.k_unroll, group_steps)
        all_steps = divisors(group_steps, (1, 2, 4, 8, 16))
        k_unroll = knob(
            "k_unroll", most_steps, (most_steps,) if isa.needs_constant_step else all_steps
        )
        # Partial sums are kept in the output, which has no room for a last panel that is not full.
        can_store_partial = op.features % FEATURES == 0
        k_blocks = range(1, activation_scales + 1) if can_store_partial else (activation_scales,)
        # Whatever `panels` is: knobs are independent of each other.
        tiles = panel_count(op.features) // max(divisors(panel_count(op.features), (1, 2)))
        return cls(
            rows=knob("tile_m", isa.tile_m, (1, 2, 3, 4, 5, 6, 8, 10, 12)),
            panels=panels,
            # Both nibbles of a byte are steps: without unpacking first, all steps are unrolled.
            k_unroll=group_steps if is_packed and not unpack_once else k_unroll,
            unpack_once=unpack_once,
            tiles_per_task=knob("tiles_per_task", 1, divisors(tiles, (1, 2, 4, 8))),
            k_block=knob("k_block", activation_scales, divisors(activation_scales, k_blocks)),
        )


@dataclass(frozen=True)
class RegisterTile:
    """Registers of sums: rows by panels by the parts of a panel's features.

    Attributes:
        rows: How many rows.
        panels: How many panels.
        parts: Registers that a panel's features take.
        lanes: Features of a register.
    """

    rows: int
    panels: int
    parts: int
    lanes: int

    @property
    def count(self) -> int:
        """How many registers."""
        return self.rows * self.panels * self.parts

    def index(self, r: Any, p: Any, part: Any) -> Any:
        """Return the register of a row, a panel and a part of its features."""
        return (r * self.panels + p) * self.parts + part

    def row_of(self, t: Any) -> Any:
        """Return a register's row."""
        return t // (self.panels * self.parts)

    def panel_of(self, t: Any) -> Any:
        """Return a register's panel."""
        return t // self.parts % self.panels

    def column_of(self, t: Any) -> Any:
        """Return the first of a register's columns, counted from the tile's first."""
        return t % (self.panels * self.parts) * self.lanes


def panel_gemm(
    op: QuantizedLinearSignature,
    knob: Config = default_config,
    instructions: InstructionSet | None = None,
) -> tirx.PrimFunc:
    """Build the kernel for many rows, for the target's instruction set or a given one."""
    isa = instructions or find_instructions(Target.current(allow_none=False))
    product, layout = PanelProduct(op, isa), panel_layout(op.weight_format)
    epilogue = Epilogue(op, FEATURES)
    choose = GemmTile.of_few_rows if op.has_few_rows else GemmTile.choose
    tile = choose(product, knob)
    group_bytes = layout.steps * layout.step * np.dtype(layout.dtype).itemsize
    prefetch = prefetch_ahead(tile.prefetch_distance, group_bytes)
    lanes, parts, steps = product.lanes, product.parts, layout.steps
    blocks = RegisterTile(tile.rows, tile.panels, parts, lanes)
    last_rows = RegisterTile(tile.last_rows, tile.task_panels, parts, lanes)
    k_blocks, block_groups = (
        op.activation_scales // tile.k_block,
        tile.k_block * op.groups_per_scale,
    )
    unpacked_shape = (
        tile.panels,
        block_groups if tile.unpack_once else 1,
        product.group_steps,
        layout.step,
    )
    f32 = f"float32x{lanes}"

    def clipped(row: Any, rows: Any) -> tirx.Expr:
        return T.min(row, rows - 1)

    def full_blocks(rows: Any) -> Any:
        """Return the number of blocks of `tile.rows`."""
        if not tile.last_rows:
            return (rows + tile.rows - 1) // tile.rows
        rest = rows % tile.rows
        return rows // tile.rows + T.Cast("int64", rest > tile.last_rows)

    def has_last_rows(rows: Any) -> Any:
        """Return whether there are rows for the last rows' tile."""
        rest = rows % tile.rows
        return T.And(rest > 0, rest <= tile.last_rows)

    def dot(
        sums: tirx.Expr, buffers: tuple[tirx.Buffer, ...], place: tuple[Any, ...], stage: Any
    ) -> tirx.Expr:
        """Add a stage's products to a register: all steps of a group, or `k_unroll` of them."""
        (x, weight, tables, unpacked), (row, first, p, part, g) = buffers, place
        order = tuple(step for steps in product.step_sets for step in steps)
        if tile.k_unroll < product.group_steps:
            order = tuple(stage * tile.k_unroll + step for step in range(tile.k_unroll))

        def quantized(step: Any) -> tirx.Expr:
            if tile.unpack_once:
                return unpacked[p, g % block_groups, step, product.features_of(part)]
            table = tables[p, T.ramp(0, 1, product.register_weights)]
            return product.weights(weight, table, first + p, g, part, step)

        return product.dot(sums, [(step, quantized(step)) for step in order], x, row, g)

    def add_scaled(
        acc: tirx.Expr,
        total: tirx.Expr,
        offset_sum: tirx.Expr,
        buffers: tuple[tirx.Buffer, ...],
        place: tuple[Any, ...],
    ) -> tirx.Expr:
        """Add a group's sums times its scales to a register.

        Args:
            acc: The register.
            total: The sums, float32. Those of unpacked bytes have the offsets' products within.
            offset_sum: Of the group's activations.
            buffers: The scales, and what they are unpacked to.
            place: The tile's first panel, the panel, the register and the group.
        """
        (scales, unpacked_scales), (first, p, part, g) = buffers, place
        if tile.unpack_once:
            scale = unpacked_scales[p, g % block_groups, 0, T.ramp(part * lanes, 1, lanes)]
            return T.fma(total, scale, acc)
        if product.folds_offsets:
            steps = product.offset_steps(scales, first + p, g, part)
            total = total + steps * T.broadcast(offset_sum, lanes)
        return T.fma(total, product.scale(scales, first + p, g, part), acc)

    def offset_factor(buffers: tuple[tirx.Buffer, ...], place: tuple[Any, ...]) -> tirx.Expr:
        """Return the steps of a group's offsets times its scales, of the features of a register."""
        (scales, unpacked_scales), (first, p, part, g) = buffers, place
        if tile.unpack_once:
            return unpacked_scales[p, g % block_groups, 1, T.ramp(part * lanes, 1, lanes)]
        panel = first + p
        return product.offset_steps(scales, panel, g, part) * product.scale(scales, panel, g, part)

    adds_offsets = product.adds_offsets
    panels, loop = panel_count(op.features), panel_loop(op)

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
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, op.width), layout.activations)
        x_scales = T.match_buffer(x_scale_handle, (rows, op.activation_scales), "float32")
        zero_point_correction = T.match_buffer(correction_handle, (rows, op.groups), "int32")
        zero_point_halves = T.match_buffer(halves_handle, (rows, op.groups, 2), "int16")
        offset_sums = T.match_buffer(offset_sum_handle, (rows, op.groups), "float32")
        weight = T.match_buffer(
            weight_handle, (panels, op.groups, steps, layout.step), layout.dtype
        )
        scales = T.match_buffer(scale_handle, (panels, op.groups, FEATURES), layout.scale_dtype)
        row_scales = T.match_buffer(row_scale_handle, (panels, FEATURES), "float32")
        levels = T.match_buffer(level_handle, (panels, FEATURES), "int8")
        bias = T.match_buffer(bias_handle, (op.features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, op.features), "float32")
        y = T.match_buffer(y_handle, (rows, op.features), "float32")
        for task in loop(panels // tile.task_panels):
            with T.sblock("task"):
                unpacked = T.sblock_alloc_buffer(unpacked_shape, "uint8")
                # Scales, and their products with the steps of offsets.
                unpacked_scales = T.sblock_alloc_buffer(
                    (*unpacked_shape[:2], 2, FEATURES), "float32"
                )
                unpacked_tables = T.sblock_alloc_buffer(
                    (tile.panels, product.register_weights), "uint8", scope="local"
                )

                @T.inline
                def load_tables(tables, count, first):
                    for p in T.unroll(count):
                        tables[p, T.ramp(0, 1, product.register_weights)] = product.table(
                            levels, first + p, tile.unpack_once
                        )

                @T.inline
                def unpack_steps(p, panel, kb, g, step):
                    for part in T.unroll(parts):
                        unpacked[p, g, step, product.features_of(part)] = product.unpacked(
                            weight,
                            scales,
                            unpacked_tables[p, T.ramp(0, 1, product.register_weights)],
                            (panel, kb * block_groups + g, part),
                            step,
                        )
                    if step + 1 < product.group_steps:
                        unpack_steps(p, panel, kb, g, step + 1)

                @T.inline
                def unpack_scales(p, panel, kb, g):
                    for part in T.unroll(parts):
                        group = T.meta_var(kb * block_groups + g)
                        scale = T.meta_var(product.unpacked_scale(scales, panel, group, part))
                        unpacked_scales[p, g, 0, T.ramp(part * lanes, 1, lanes)] = scale
                        if adds_offsets:
                            steps = T.meta_var(product.offset_steps(scales, panel, group, part))
                            unpacked_scales[p, g, 1, T.ramp(part * lanes, 1, lanes)] = scale * steps

                @T.inline
                def unpack_panel(p, panel, kb):
                    for g in T.serial(block_groups):
                        unpack_steps(p, panel, kb, g, 0)
                        unpack_scales(p, panel, kb, g)

                @T.inline
                def multiply(registers, first_row, first, kb):
                    """Multiply the rows of a tile, from a row on, with panels from one on."""
                    with T.sblock("tile"):
                        # Read and written by whole registers only: LLVM would keep them in
                        # memory.
                        acc_f32 = T.sblock_alloc_buffer(
                            (registers.count, lanes), "float32", scope="local"
                        )
                        acc_block = T.sblock_alloc_buffer(
                            (registers.count, lanes), "float32", scope="local"
                        )
                        acc_i32 = T.sblock_alloc_buffer(
                            (registers.rows, lanes), "int32", scope="local"
                        )
                        sums = T.sblock_alloc_buffer(
                            (registers.rows * registers.panels, FEATURES), "float32", scope="local"
                        )
                        tables = T.sblock_alloc_buffer(
                            (registers.panels, product.register_weights), "uint8", scope="local"
                        )

                        @T.inline
                        def init_acc():
                            for t in T.unroll(registers.count):
                                for c in T.vectorized(lanes):
                                    acc_f32[t, c] = T.float32(0)
                            if k_blocks > 1:  # noqa: SIM102  # known while the kernel is built
                                if kb > 0:
                                    for t in T.unroll(registers.count):
                                        for c in T.vectorized(lanes):
                                            acc_f32[t, c] = y[
                                                clipped(first_row + registers.row_of(t), rows),
                                                first * FEATURES + registers.column_of(t) + c,
                                            ]

                        @T.inline
                        def dot_group(p, part, g):
                            for r in T.unroll(registers.rows):
                                row = T.meta_var(clipped(first_row + r, rows))
                                acc_i32[r, T.ramp(0, 1, lanes)] = dot(
                                    T.broadcast(
                                        product.initial_sums(
                                            zero_point_correction, zero_point_halves, row, g
                                        ),
                                        lanes,
                                    ),
                                    (x, weight, tables, unpacked),
                                    (row, first, p, part, g),
                                    0,
                                )
                            # Rows alternate after some steps, which hides the latency of a
                            # row's dependent additions.
                            for stage in T.unroll(product.group_steps // tile.k_unroll - 1):
                                for r in T.unroll(registers.rows):
                                    row = T.meta_var(clipped(first_row + r, rows))
                                    acc_i32[r, T.ramp(0, 1, lanes)] = dot(
                                        acc_i32[r, T.ramp(0, 1, lanes)],
                                        (x, weight, tables, unpacked),
                                        (row, first, p, part, g),
                                        stage + 1,
                                    )
                            for r in T.unroll(registers.rows):
                                row = T.meta_var(clipped(first_row + r, rows))
                                total = T.meta_var(
                                    T.Cast(
                                        f32,
                                        product.completed(acc_i32[r, T.ramp(0, 1, lanes)]),
                                    )
                                )
                                t = T.meta_var(registers.index(r, p, part))
                                acc_block[t, T.ramp(0, 1, lanes)] = add_scaled(
                                    acc_block[t, T.ramp(0, 1, lanes)],
                                    total,
                                    offset_sums[row, g] if product.is_packed else None,
                                    (scales, unpacked_scales),
                                    (first, p, part, g),
                                )

                        @T.inline
                        def add_offsets(s):
                            """Add the products of offsets: apart, so that registers suffice."""
                            for g in T.serial(op.groups_per_scale):
                                group = T.meta_var(s * op.groups_per_scale + g)
                                for t in T.unroll(registers.count):
                                    row = T.meta_var(clipped(first_row + registers.row_of(t), rows))
                                    factor = T.meta_var(
                                        offset_factor(
                                            (scales, unpacked_scales),
                                            (first, registers.panel_of(t), t % parts, group),
                                        )
                                    )
                                    acc_block[t, T.ramp(0, 1, lanes)] = T.fma(
                                        factor,
                                        T.broadcast(offset_sums[row, group], lanes),
                                        acc_block[t, T.ramp(0, 1, lanes)],
                                    )

                        @T.inline
                        def scale_accumulate(s):
                            for t in T.unroll(registers.count):
                                row = T.meta_var(clipped(first_row + registers.row_of(t), rows))
                                for c in T.vectorized(lanes):
                                    acc_f32[t, c] = T.fma(
                                        acc_block[t, c],
                                        x_scales[row, s] * T.float32(layout.unit),
                                        acc_f32[t, c],
                                    )

                        @T.inline
                        def store_partial():
                            for t in T.unroll(registers.count):
                                if first_row + registers.row_of(t) < rows:
                                    for c in T.vectorized(lanes):
                                        y[
                                            first_row + registers.row_of(t),
                                            first * FEATURES + registers.column_of(t) + c,
                                        ] = acc_f32[t, c]

                        @T.inline
                        def store(r, p):
                            for part in T.unroll(parts):
                                for c in T.vectorized(lanes):
                                    sums[r * registers.panels + p, part * lanes + c] = acc_f32[
                                        registers.index(r, p, part), c
                                    ]
                            row = T.meta_var(first_row + r)
                            if row < rows:
                                for c in epilogue.columns(FEATURES):
                                    j = T.meta_var((first + p) * FEATURES + c)
                                    factor = T.meta_var(
                                        row_scales[first + p, c] if layout.has_tables else None
                                    )
                                    if epilogue.is_feature(j):
                                        y[row, j] = epilogue.value(
                                            sums[r * registers.panels + p, c],
                                            bias,
                                            residual,
                                            (row, j),
                                            factor,
                                        )

                        if product.is_packed and not tile.unpack_once:
                            load_tables(tables, registers.panels, first)
                        init_acc()
                        for s in T.serial(tile.k_block):
                            for t in T.unroll(registers.count):
                                for c in T.vectorized(lanes):
                                    acc_block[t, c] = T.float32(0)
                            scale = T.meta_var(kb * tile.k_block + s)
                            for g in T.serial(op.groups_per_scale):
                                group = T.meta_var(scale * op.groups_per_scale + g)
                                for p in T.unroll(registers.panels):
                                    prefetch(weight, first + p, group)
                                    for part in T.unroll(parts):
                                        dot_group(p, part, group)
                            if adds_offsets:
                                add_offsets(scale)
                            scale_accumulate(scale)
                        if k_blocks > 1 and kb < k_blocks - 1:
                            store_partial()
                        else:
                            for r in T.unroll(registers.rows):
                                for p in T.unroll(registers.panels):
                                    store(r, p)

                for kb, at in T.grid(k_blocks, tile.tiles_per_task):
                    first = T.meta_var(task * tile.task_panels + at * tile.panels)
                    if tile.unpack_once:
                        load_tables(unpacked_tables, tile.panels, first)
                        for p in T.unroll(tile.panels):
                            unpack_panel(p, first + p, kb)
                    for block in T.serial(full_blocks(rows)):
                        multiply(blocks, block * tile.rows, first, kb)
                if tile.last_rows > 0:  # noqa: SIM102  # known while the kernel is built
                    if has_last_rows(rows):
                        multiply(
                            last_rows,
                            rows // tile.rows * tile.rows,
                            task * tile.task_panels,
                            T.int64(0),
                        )

    return keep_parameters(kernel, op)
