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

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import QuantizedLinearSignature
from mvlm.schedules.config_space import Config, default_config, divisors
from mvlm.schedules.cpu.instructions import InstructionSet, find_instructions
from mvlm.schedules.cpu.panel_product import PanelProduct
from mvlm.schedules.cpu.panels import FEATURES, panel_count, panel_layout
from mvlm.schedules.epilogue import Epilogue


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
    """

    rows: int
    panels: int
    k_unroll: int
    unpack_once: bool
    tiles_per_task: int
    k_block: int

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


def panel_gemm(
    op: QuantizedLinearSignature,
    knob: Config = default_config,
    instructions: InstructionSet | None = None,
) -> tirx.PrimFunc:
    """Build the kernel for many rows, for the target's instruction set or a given one."""
    isa = instructions or find_instructions(Target.current(allow_none=False))
    product, layout = PanelProduct(op, isa), panel_layout(op.weight_format)
    epilogue = Epilogue(op, FEATURES)
    tile = GemmTile.choose(product, knob)
    lanes, parts, steps, tile_m = product.lanes, product.parts, layout.steps, tile.rows
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
    registers, f32 = (tile_m * tile.panels * parts, lanes), f"float32x{lanes}"

    def register(r: Any, p: Any, part: Any) -> Any:
        """Return the register of a row, a panel and a part of its features."""
        return (r * tile.panels + p) * parts + part

    def row_of(t: Any) -> Any:
        return t // (tile.panels * parts)

    def column_of(t: Any) -> Any:
        """Return the first of a register's columns, counted from the tile's first."""
        return t % (tile.panels * parts) * lanes

    def clipped(row: Any, rows: Any) -> tirx.Expr:
        return T.min(row, rows - 1)

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

    def scaled(
        total: tirx.Expr,
        offset_sum: tirx.Expr | None,
        buffers: tuple[tirx.Buffer, ...],
        place: tuple[Any, ...],
    ) -> tirx.Expr:
        """Return a group's sums times its scales; its offsets' products are added if not unpacked.

        Args:
            total: The sums, float32.
            offset_sum: Of the group's activations; None if there are no offsets.
            buffers: The scales, and what they are unpacked to.
            place: The tile's first panel, the panel, the register and the group.
        """
        (scales, unpacked_scales), (first, p, part, g) = buffers, place
        if tile.unpack_once:
            scale = unpacked_scales[p, g % block_groups, 0, T.ramp(part * lanes, 1, lanes)]
            return total * scale
        if offset_sum is not None:
            steps = product.offset_steps(scales, first + p, g, part)
            total = total + steps * T.broadcast(offset_sum, lanes)
        return total * product.scale(scales, first + p, g, part)

    adds_offsets = tile.unpack_once and product.is_packed and not product.folds_offsets
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
        for task in T.parallel(panels // (tile.panels * tile.tiles_per_task)):
            with T.sblock("task"):
                unpacked = T.sblock_alloc_buffer(unpacked_shape, "uint8")
                # Scales, and their products with the steps of offsets.
                unpacked_scales = T.sblock_alloc_buffer(
                    (*unpacked_shape[:2], 2, FEATURES), "float32"
                )
                tables = T.sblock_alloc_buffer(
                    (tile.panels, product.register_weights), "uint8", scope="local"
                )

                @T.inline
                def load_tables(first):
                    if product.is_packed:
                        for p in T.unroll(tile.panels):
                            tables[p, T.ramp(0, 1, product.register_weights)] = product.table(
                                levels, first + p, tile.unpack_once
                            )

                @T.inline
                def unpack_steps(p, panel, kb, g, step):
                    for part in T.unroll(parts):
                        unpacked[p, g, step, product.features_of(part)] = product.unpacked(
                            weight,
                            scales,
                            tables[p, T.ramp(0, 1, product.register_weights)],
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

                for kb, at in T.grid(k_blocks, tile.tiles_per_task):
                    first = T.meta_var((task * tile.tiles_per_task + at) * tile.panels)
                    load_tables(first)
                    if tile.unpack_once:
                        for p in T.unroll(tile.panels):
                            unpack_panel(p, first + p, kb)
                    for block in T.serial((rows + tile_m - 1) // tile_m):
                        with T.sblock("tile"):
                            # Read and written by whole registers only: LLVM would keep them in
                            # memory.
                            acc_f32 = T.sblock_alloc_buffer(registers, "float32", scope="local")
                            acc_block = T.sblock_alloc_buffer(registers, "float32", scope="local")
                            acc_i32 = T.sblock_alloc_buffer((tile_m, lanes), "int32", scope="local")
                            sums = T.sblock_alloc_buffer(
                                (tile_m * tile.panels, FEATURES), "float32", scope="local"
                            )

                            @T.inline
                            def init_acc():
                                for t in T.unroll(registers[0]):
                                    for c in T.vectorized(lanes):
                                        acc_f32[t, c] = T.float32(0)
                                if k_blocks > 1:  # noqa: SIM102  # known while the kernel is built
                                    if kb > 0:
                                        for t in T.unroll(registers[0]):
                                            for c in T.vectorized(lanes):
                                                acc_f32[t, c] = y[
                                                    clipped(block * tile_m + row_of(t), rows),
                                                    first * FEATURES + column_of(t) + c,
                                                ]

                            @T.inline
                            def dot_group(p, part, g):
                                for r in T.unroll(tile_m):
                                    row = T.meta_var(clipped(block * tile_m + r, rows))
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
                                    for r in T.unroll(tile_m):
                                        row = T.meta_var(clipped(block * tile_m + r, rows))
                                        acc_i32[r, T.ramp(0, 1, lanes)] = dot(
                                            acc_i32[r, T.ramp(0, 1, lanes)],
                                            (x, weight, tables, unpacked),
                                            (row, first, p, part, g),
                                            stage + 1,
                                        )
                                for r in T.unroll(tile_m):
                                    row = T.meta_var(clipped(block * tile_m + r, rows))
                                    total = T.meta_var(
                                        T.Cast(
                                            f32,
                                            product.completed(acc_i32[r, T.ramp(0, 1, lanes)]),
                                        )
                                    )
                                    acc_block[register(r, p, part), T.ramp(0, 1, lanes)] += scaled(
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
                                    for t in T.unroll(registers[0]):
                                        row = T.meta_var(clipped(block * tile_m + row_of(t), rows))
                                        panel = T.meta_var(t // parts % tile.panels)
                                        first_column = T.meta_var(t % parts * lanes)
                                        acc_block[t, T.ramp(0, 1, lanes)] += unpacked_scales[
                                            panel,
                                            group % block_groups,
                                            1,
                                            T.ramp(first_column, 1, lanes),
                                        ] * T.broadcast(offset_sums[row, group], lanes)

                            @T.inline
                            def scale_accumulate(s):
                                for t in T.unroll(registers[0]):
                                    row = T.meta_var(clipped(block * tile_m + row_of(t), rows))
                                    for c in T.vectorized(lanes):
                                        acc_f32[t, c] += acc_block[t, c] * (
                                            x_scales[row, s] * T.float32(layout.unit)
                                        )

                            @T.inline
                            def store_partial():
                                for t in T.unroll(registers[0]):
                                    if block * tile_m + row_of(t) < rows:
                                        for c in T.vectorized(lanes):
                                            y[
                                                block * tile_m + row_of(t),
                                                first * FEATURES + column_of(t) + c,
                                            ] = acc_f32[t, c]

                            @T.inline
                            def store(r, p):
                                for part in T.unroll(parts):
                                    for c in T.vectorized(lanes):
                                        sums[r * tile.panels + p, part * lanes + c] = acc_f32[
                                            register(r, p, part), c
                                        ] * (
                                            row_scales[first + p, part * lanes + c]
                                            if layout.has_tables
                                            else T.float32(1)
                                        )
                                if block * tile_m + r < rows:
                                    for c in epilogue.columns(FEATURES):
                                        if epilogue.is_feature((first + p) * FEATURES + c):
                                            y[block * tile_m + r, (first + p) * FEATURES + c] = (
                                                epilogue.value(
                                                    sums[r * tile.panels + p, c],
                                                    bias,
                                                    residual,
                                                    block * tile_m + r,
                                                    (first + p) * FEATURES + c,
                                                )
                                            )

                            init_acc()
                            for s in T.serial(tile.k_block):
                                for t in T.unroll(registers[0]):
                                    for c in T.vectorized(lanes):
                                        acc_block[t, c] = T.float32(0)
                                scale = T.meta_var(kb * tile.k_block + s)
                                for g in T.serial(op.groups_per_scale):
                                    for p in T.unroll(tile.panels):
                                        for part in T.unroll(parts):
                                            dot_group(p, part, scale * op.groups_per_scale + g)
                                if adds_offsets:
                                    add_offsets(scale)
                                scale_accumulate(scale)
                            if k_blocks > 1 and kb < k_blocks - 1:
                                store_partial()
                            else:
                                for r in T.unroll(tile_m):
                                    for p in T.unroll(tile.panels):
                                        store(r, p)

    return keep_parameters(kernel, op)
