"""Linear layers over panels of 4- or 8-bit weights and 8-bit activations (see `models.panels`).

A tile of some rows and one panel, 16 features, stays in registers while the panel goes by once
from its beginning to its end, a group of 32 at a time: its levels are taken apart, multiplied with
each row's four activations a step, and summed in 32 bits; the sum, exact, is then multiplied with
the group's scale and added in float32. 32 products of 255 and 127 come to a million: nothing
overflows. As many groups as the activations' scales are shared by are added before these are
multiplied with; scales of whole rows of weights come last.

Many rows would take the same 4-bit levels apart again and again: a panel's are taken apart once,
into bytes that stay in the cache.

Panels are shared between the threads, so that each thread reads a stretch of memory of its own.
A block of rows that is not full computes its last row again instead of branching in the inner
loop, and does not store it.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.schedules.cpu.instructions import InstructionSet, find_instructions
from mvlm.schedules.cpu.linear import Addends, panel_loop, store_panel
from mvlm.schedules.signature import (
    attribute,
    extents,
    is_single_row,
    keep_parameters,
    parameter_types,
)

_GROUP = 32
_FEATURES = 16


def panel_linear(
    definition: tirx.PrimFunc, instructions: InstructionSet | None = None
) -> tirx.PrimFunc:
    """Serve ``panel_linear``, by the target's instructions or by those that are given."""
    chosen = instructions or find_instructions(Target.current(allow_none=False))
    types, bits = parameter_types(definition), int(definition.attrs["mvlm.bits"])
    has_offsets = bits < 16  # 16-bit weights are signed
    has_row_scales = attribute(definition, "row_scales", False)
    x_type, x_scale_type, y_type = types[0], types[1], types[-1]
    panel_type, scale_type = types[3:5] if has_offsets else types[2:4]
    panels, groups, steps, step_width = extents(panel_type)
    shares = int(x_scale_type.shape[1])
    sharing, scale_dtype = groups // shares, str(scale_type.dtype)
    features, addends = int(y_type.shape[1]), Addends.of(definition)
    is_one = is_single_row(x_type)
    lanes, tile_rows = chosen.lanes, 1 if is_one else chosen.rows
    takes_apart = bits == 4 and not is_one
    parts, depth = _FEATURES // lanes, step_width // _FEATURES
    stages = 1 if is_one else max(1, _GROUP // depth // chosen.at_once)
    weight_dtype, x_dtype = str(panel_type.dtype), str(x_type.dtype)
    starts_at_zero = not has_offsets or (bits == 8 and chosen.is_signed)
    unit = attribute(definition, "unit", 1.0)
    store, loop = store_panel(features, addends), panel_loop(x_type, panel_type)

    def level(
        weights: tirx.Buffer, apart: tirx.Buffer, place: tuple[tirx.Expr, ...], step: Any
    ) -> tirx.Expr:
        """Read a step's levels, for the features of one register."""
        panel, group, part = place
        ramp = T.ramp(part * depth * lanes, 1, depth * lanes)
        if takes_apart:
            return apart[group, step, ramp]
        stored = weights[panel, group, step % steps, ramp]
        if bits != 4:
            return stored
        if step < steps:
            return stored & T.broadcast(T.uint8(15), depth * lanes)
        return stored >> T.broadcast(T.uint8(4), depth * lanes)

    def products(
        sums: tirx.Expr,
        weights: tirx.Buffer,
        apart: tirx.Buffer,
        x: tirx.Buffer,
        place: tuple[tirx.Expr, ...],
        stage: tirx.Expr,
    ) -> tirx.Expr:
        """Add the products of a group's stage to `sums`, for the features of one register."""
        row, group = place[0], place[2]
        # Both halves of a byte one after the other, lest bytes wait in registers there are not.
        halves = _GROUP // depth // steps
        order = [half * steps + step for step in range(steps) for half in range(halves)]
        if stages > 1:
            order = [stage * chosen.at_once + step for step in range(chosen.at_once)]
        levels = [(step, level(weights, apart, place[1:], step)) for step in order]

        def activations(first: int, count: int) -> tirx.Expr:
            read = x[row, T.ramp(group * _GROUP + depth * first, 1, depth * count)]
            return T.reinterpret("int32" if count == 1 else f"int32x{count}", read)

        return chosen.dot(sums, levels, activations, bits)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        x_scale_handle: T.handle,
        offset_handle: T.handle,
        panel_handle: T.handle,
        scale_handle: T.handle,
        row_scale_handle: T.handle,
        bias_handle: T.handle,
        plus_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, groups * _GROUP), x_dtype)
        x_scales = T.match_buffer(x_scale_handle, (rows, shares), "float32")
        offsets = T.match_buffer(offset_handle, (rows, groups), "int32")
        weights = T.match_buffer(panel_handle, (panels, groups, steps, step_width), weight_dtype)
        scales = T.match_buffer(scale_handle, (panels, groups, _FEATURES), scale_dtype)
        row_scales = T.match_buffer(row_scale_handle, (panels, _FEATURES), "float32")
        bias = T.match_buffer(bias_handle, (features,), "float32")
        plus = T.match_buffer(plus_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for panel in loop(panels):
            with T.sblock("panel"):
                apart = T.sblock_alloc_buffer(
                    (groups if takes_apart else 1, 2 * steps, step_width), "uint8"
                )
                if takes_apart:
                    for group in T.serial(groups):
                        for step in T.unroll(steps):
                            for b in T.vectorized(step_width):
                                apart[group, step, b] = T.bitwise_and(
                                    weights[panel, group, step, b], T.uint8(15)
                                )
                                apart[group, steps + step, b] = T.shift_right(
                                    weights[panel, group, step, b], T.uint8(4)
                                )
                for block in T.serial((rows + tile_rows - 1) // tile_rows):
                    with T.sblock("tile"):
                        # Read and written by whole registers only: LLVM would keep it in memory.
                        total = T.sblock_alloc_buffer(
                            (tile_rows, parts, lanes), "float32", scope="local"
                        )
                        some = T.sblock_alloc_buffer(
                            (tile_rows, parts, lanes), "float32", scope="local"
                        )
                        exact = T.sblock_alloc_buffer((tile_rows, lanes), "int32", scope="local")
                        sums = T.sblock_alloc_buffer(
                            (tile_rows, _FEATURES), "float32", scope="local"
                        )
                        for r in T.unroll(tile_rows):
                            for part in T.unroll(parts):
                                for c in T.vectorized(lanes):
                                    total[r, part, c] = T.float32(0)
                        for share in T.serial(shares):
                            for r in T.unroll(tile_rows):
                                for part in T.unroll(parts):
                                    for c in T.vectorized(lanes):
                                        some[r, part, c] = T.float32(0)
                            for turn in T.serial(sharing):
                                group = T.meta_var(share * sharing + turn)
                                for part in T.unroll(parts):
                                    scale = T.meta_var(
                                        T.Cast(
                                            f"float32x{lanes}",
                                            scales[panel, group, T.ramp(part * lanes, 1, lanes)],
                                        )
                                    )
                                    for r in T.unroll(tile_rows):
                                        row = T.meta_var(T.min(block * tile_rows + r, rows - 1))
                                        start = T.meta_var(
                                            T.int32(0) if starts_at_zero else offsets[row, group]
                                        )
                                        exact[r, T.ramp(0, 1, lanes)] = T.broadcast(start, lanes)
                                    # Some steps of one row, and then the next row's, lest a row
                                    # wait for its own sums.
                                    for stage in T.unroll(stages):
                                        for r in T.unroll(tile_rows):
                                            row = T.meta_var(T.min(block * tile_rows + r, rows - 1))
                                            place = T.meta_var((row, panel, group, part))
                                            exact[r, T.ramp(0, 1, lanes)] = products(
                                                exact[r, T.ramp(0, 1, lanes)],
                                                weights,
                                                apart,
                                                x,
                                                place,
                                                stage,
                                            )
                                    for r in T.unroll(tile_rows):
                                        some[r, part, T.ramp(0, 1, lanes)] += (
                                            T.Cast(
                                                f"float32x{lanes}", exact[r, T.ramp(0, 1, lanes)]
                                            )
                                            * scale
                                        )
                            for r in T.unroll(tile_rows):
                                row = T.meta_var(T.min(block * tile_rows + r, rows - 1))
                                x_scale = T.meta_var(x_scales[row, share] * T.float32(unit))
                                for part in T.unroll(parts):
                                    for c in T.vectorized(lanes):
                                        total[r, part, c] += some[r, part, c] * x_scale
                        for r in T.unroll(tile_rows):
                            for part in T.unroll(parts):
                                for c in T.vectorized(lanes):
                                    if has_row_scales:
                                        sums[r, part * lanes + c] = (
                                            total[r, part, c] * row_scales[panel, part * lanes + c]
                                        )
                                    else:
                                        sums[r, part * lanes + c] = total[r, part, c]
                            if block * tile_rows + r < rows:
                                store(y, sums, bias, plus, block * tile_rows + r, panel, r)

    addends_kept = (addends.bias, addends.plus, True)
    kept = (True, True, has_offsets, True, True, has_row_scales, *addends_kept)
    return keep_parameters(kernel, kept)
