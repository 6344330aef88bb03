"""Linear layers with float32 activations and integer weights on a CPU, over panels of 16 features.

The tile is that of `float_linear`. Each step unpacks the weights of 16 features, converts them to
float32 and multiplies them with their groups' scales, once for all rows of the tile.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import LinearSignature
from mvlm.models.quantization import GROUP_SIZE, WeightFormat
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.dynamic_parallel import panel_loop
from mvlm.schedules.cpu.panels import FEATURES, panel_count
from mvlm.schedules.cpu.vectors import TILE_M_VALUES, default_tile_m
from mvlm.schedules.epilogue import Epilogue


def packed_linear(op: LinearSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` over integer weights that are no indices of levels."""
    stored = op.weight_format
    if not stored.is_integer or stored.has_tables:
        return None
    epilogue, loop = Epilogue(op, FEATURES), panel_loop(op)
    packing, unpack = stored.packing, _unpack(stored)
    elements, tile_m = stored.elements(op.width), 1
    if not op.is_single_row:
        tile_m = knob("tile_m", default_tile_m(Target.current(allow_none=False)), TILE_M_VALUES)
    panels = panel_count(op.features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        weight_handle: T.handle,
        scale_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, op.width), "float32")
        weight = T.match_buffer(weight_handle, (panels, elements, FEATURES), stored.dtype)
        scales = T.match_buffer(scale_handle, (panels, op.groups, FEATURES), stored.scale_dtype)
        bias = T.match_buffer(bias_handle, (op.features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, op.features), "float32")
        y = T.match_buffer(y_handle, (rows, op.features), "float32")
        for panel in loop(panels):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_m, FEATURES), "float32", scope="local")
                    values = T.sblock_alloc_buffer((FEATURES,), "float32", scope="local")

                    @T.inline
                    def multiply_add(element, part):
                        group = T.meta_var(element * packing // GROUP_SIZE)
                        for c in T.vectorized(FEATURES):
                            values[c] = unpack(weight[panel, element, c], part) * T.Cast(
                                "float32", scales[panel, group, c]
                            )
                        for r in T.unroll(tile_m):
                            row = T.meta_var(T.min(block * tile_m + r, rows - 1))
                            for c in T.vectorized(FEATURES):
                                acc[r, c] = T.fma(
                                    x[row, element * packing + part], values[c], acc[r, c]
                                )

                    for r in T.unroll(tile_m):
                        for c in T.vectorized(FEATURES):
                            acc[r, c] = T.float32(0)
                    for element in T.serial(elements):
                        for part in T.unroll(packing):
                            # The last element is not full where `packing` does not divide K.
                            if element * packing + part < op.width:
                                multiply_add(element, part)
                    for r in T.unroll(tile_m):
                        row = T.meta_var(block * tile_m + r)
                        if row < rows:
                            for c in epilogue.columns(FEATURES):
                                j = T.meta_var(panel * FEATURES + c)
                                if epilogue.is_feature(j):
                                    y[row, j] = epilogue.value(acc[r, c], bias, residual, (row, j))

    return keep_parameters(kernel, op)


def _unpack(stored: WeightFormat) -> Callable[[tirx.Expr, tirx.Expr], tirx.Expr]:
    """Return what reads the integer `part` of a stored element, as float32."""
    packing, zero = stored.packing, stored.zero_point
    bits = 32 // packing

    def quantized(element: tirx.Expr, part: tirx.Expr) -> tirx.Expr:
        if packing > 1:
            shifted = T.shift_right(element, T.Cast("uint32", part * bits))
            element = T.bitwise_and(shifted, T.uint32((1 << bits) - 1))
        value = T.Cast("float32", element)
        return value - T.float32(zero) if zero else value

    return quantized
