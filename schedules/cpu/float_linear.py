"""Linear layers with float32 activations and float weights on a CPU, over panels of 16 features.

A register tile of some rows and one panel is accumulated while the panel is read once from
beginning to end: each step loads the weights of 16 features, converts them, and multiplies them
with one input of each row. A row block that is not full computes its last row again instead of
branching in the inner loop, and does not store it. A single row would be bound by the latency of
its dependent additions: it reads several panels side by side. Either way an output is the sum of
its products in their order along K, so that a row's outputs do not depend on how many rows there
are.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import LinearSignature
from mvlm.schedules.config_space import Config, default_config, divisors
from mvlm.schedules.cpu.dynamic_parallel import panel_loop
from mvlm.schedules.cpu.panels import FEATURES, panel_count
from mvlm.schedules.cpu.vectors import TILE_M_VALUES, default_tile_m
from mvlm.schedules.epilogue import Epilogue

# Panels whose sums a single row accumulates at once.
_TILE_PANELS = 4


def float_gemv(op: LinearSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` for one row and float32 or float16 weights."""
    if op.weight_format.is_integer or not op.is_single_row:
        return None
    epilogue, loop, dtype = Epilogue(op, FEATURES), panel_loop(op), op.weight_format.dtype
    panels = panel_count(op.features)
    tiles = divisors(panels, (1, 2, 4, 8))
    tile_panels = knob("tile_panels", max(each for each in tiles if each <= _TILE_PANELS), tiles)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        weight_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        x = T.match_buffer(x_handle, (1, op.width), "float32")
        weight = T.match_buffer(weight_handle, (panels, op.width, FEATURES), dtype)
        bias = T.match_buffer(bias_handle, (op.features,), "float32")
        residual = T.match_buffer(residual_handle, (1, op.features), "float32")
        y = T.match_buffer(y_handle, (1, op.features), "float32")
        for task in loop(panels // tile_panels):
            with T.sblock("tile"):
                acc = T.sblock_alloc_buffer((tile_panels, FEATURES), "float32", scope="local")
                for p in T.unroll(tile_panels):
                    for c in T.vectorized(FEATURES):
                        acc[p, c] = T.float32(0)
                for k in T.serial(op.width):
                    for p in T.unroll(tile_panels):
                        panel = T.meta_var(task * tile_panels + p)
                        for c in T.vectorized(FEATURES):
                            acc[p, c] = T.fma(
                                x[0, k], T.Cast("float32", weight[panel, k, c]), acc[p, c]
                            )
                for p in T.unroll(tile_panels):
                    for c in epilogue.columns(FEATURES):
                        j = T.meta_var((task * tile_panels + p) * FEATURES + c)
                        if epilogue.is_feature(j):
                            y[0, j] = epilogue.value(acc[p, c], bias, residual, (0, j))

    return keep_parameters(kernel, op)


def float_gemm(op: LinearSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` for many rows and float32 or float16 weights."""
    if op.weight_format.is_integer:
        return None
    epilogue, dtype = Epilogue(op, FEATURES), op.weight_format.dtype
    tile_m = knob("tile_m", default_tile_m(Target.current(allow_none=False)), TILE_M_VALUES)
    panels = panel_count(op.features)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        weight_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, op.width), "float32")
        weight = T.match_buffer(weight_handle, (panels, op.width, FEATURES), dtype)
        bias = T.match_buffer(bias_handle, (op.features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, op.features), "float32")
        y = T.match_buffer(y_handle, (rows, op.features), "float32")
        for panel in T.parallel(panels):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_m, FEATURES), "float32", scope="local")
                    for r in T.unroll(tile_m):
                        for c in T.vectorized(FEATURES):
                            acc[r, c] = T.float32(0)
                    for k in T.serial(op.width):
                        for r in T.unroll(tile_m):
                            row = T.meta_var(T.min(block * tile_m + r, rows - 1))
                            for c in T.vectorized(FEATURES):
                                acc[r, c] = T.fma(
                                    x[row, k], T.Cast("float32", weight[panel, k, c]), acc[r, c]
                                )
                    for r in T.unroll(tile_m):
                        row = T.meta_var(block * tile_m + r)
                        if row < rows:
                            for c in epilogue.columns(FEATURES):
                                j = T.meta_var(panel * FEATURES + c)
                                if epilogue.is_feature(j):
                                    y[row, j] = epilogue.value(acc[r, c], bias, residual, (row, j))

    return keep_parameters(kernel, op)
