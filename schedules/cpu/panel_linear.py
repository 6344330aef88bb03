"""Linear layers over panels of 4- or 8-bit weights and 8-bit activations (see `models.panels`).

A tile of some rows and one panel, 16 features, stays in registers while the panel goes by once
from its beginning to its end, a group of 32 at a time: its levels are taken apart, multiplied with
each row's four activations a step, and summed in 32 bits; the sum, exact, is then multiplied with
both scales and added in float32. 32 products of 255 and 127 come to a million: nothing overflows.

Panels are shared between the threads, so that each thread reads a stretch of memory of its own.
A block of rows that is not full computes its last row again instead of branching in the inner
loop, and does not store it.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.schedules.cpu.instructions import InstructionSet, find_instructions
from mvlm.schedules.cpu.linear import store_panel
from mvlm.schedules.signature import extents, is_single_row, parameter_types

_GROUP = 32
_FEATURES = 16


def panel_linear(
    definition: tirx.PrimFunc, instructions: InstructionSet | None = None
) -> tirx.PrimFunc:
    """Serve ``panel_linear``, by the target's instructions or by those that are given."""
    chosen = instructions or find_instructions(Target.current(allow_none=False))
    x_type, _, _, panel_type, _, y_type = parameter_types(definition)
    panels, groups, steps, step_bytes = extents(panel_type)
    bits, features = int(definition.attrs["mvlm.bits"]), int(y_type.shape[1])
    lanes, tile_rows = chosen.lanes, 1 if is_single_row(x_type) else chosen.rows
    parts, depth = _FEATURES // lanes, step_bytes // _FEATURES
    starts_at_zero = bits == 8 and chosen.is_signed
    store = store_panel(features)

    def products(
        start: tirx.Expr, levels: tirx.Buffer, x: tirx.Buffer, place: tuple[tirx.Expr, ...]
    ) -> tirx.Expr:
        """Add a group's products to `start`, for the features of one register."""
        row, group, part = place
        pairs = [
            (
                levels[step, T.ramp(part * depth * lanes, 1, depth * lanes)],
                T.reinterpret("int32", x[row, T.ramp(group * _GROUP + depth * step, 1, depth)]),
            )
            for step in range(_GROUP // depth)
        ]
        return chosen.dot(T.broadcast(start, lanes), pairs, bits)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        x_scale_handle: T.handle,
        offset_handle: T.handle,
        panel_handle: T.handle,
        scale_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, groups * _GROUP), "int8")
        x_scales = T.match_buffer(x_scale_handle, (rows, groups), "float32")
        offsets = T.match_buffer(offset_handle, (rows, groups), "int32")
        weights = T.match_buffer(panel_handle, (panels, groups, steps, step_bytes), "uint8")
        scales = T.match_buffer(scale_handle, (panels, groups, _FEATURES), "float16")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for panel in T.parallel(panels):
            for block in T.serial((rows + tile_rows - 1) // tile_rows):
                with T.sblock("tile"):
                    levels = T.sblock_alloc_buffer((8, step_bytes), "uint8", scope="local")
                    total = T.sblock_alloc_buffer((tile_rows, _FEATURES), "float32", scope="local")
                    exact = T.sblock_alloc_buffer((tile_rows, _FEATURES), "int32", scope="local")
                    for r in T.unroll(tile_rows):
                        for c in T.vectorized(_FEATURES):
                            total[r, c] = T.float32(0)
                    for group in T.serial(groups):
                        for step in T.unroll(steps):
                            for b in T.vectorized(step_bytes):
                                if bits == 8:
                                    levels[step, b] = weights[panel, group, step, b]
                                else:
                                    levels[step, b] = T.bitwise_and(
                                        weights[panel, group, step, b], T.uint8(15)
                                    )
                                    levels[steps + step, b] = T.shift_right(
                                        weights[panel, group, step, b], T.uint8(4)
                                    )
                        for r in T.unroll(tile_rows):
                            row = T.meta_var(T.min(block * tile_rows + r, rows - 1))
                            for part in T.unroll(parts):
                                exact[r, T.ramp(part * lanes, 1, lanes)] = products(
                                    T.int32(0) if starts_at_zero else offsets[row, group],
                                    levels,
                                    x,
                                    (row, group, part),
                                )
                            for c in T.vectorized(_FEATURES):
                                total[r, c] += T.Cast("float32", exact[r, c]) * (
                                    T.Cast("float32", scales[panel, group, c])
                                    * x_scales[row, group]
                                )
                    for r in T.unroll(tile_rows):
                        if block * tile_rows + r < rows:
                            store(y, total, block * tile_rows + r, panel, r)

    return kernel
