"""Linear layers with float32 activations on a CPU, over panels of 16 features.

A register tile of some rows and one panel is accumulated while the panel is read once from
beginning to end: each step loads the weights of 16 features, converts them, and multiplies them
with one input of each row. A row block that is not full computes its last row again instead of
branching in the inner loop, and does not store it. A single row would be bound by the latency of
its dependent additions: it has several accumulators, each of every n-th element along K.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.signatures import LinearSignature, PanelLinearSignature
from mvlm.models.panels import FEATURES
from mvlm.models.quantization import GROUP_SIZE, WeightFormat
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.vectors import default_tile_m

# Accumulators of a single row.
_ACCUMULATORS = 8
_TILE_M_VALUES = (1, 2, 3, 4, 6, 8, 10, 12, 16)
# Bytes of weights that one thread reads in the microseconds that waking another one takes.
_SERIAL_BYTES = 1 << 18


def float_linear(op: LinearSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` over float32 or float16 weights."""
    if op.weight_format.is_integer:
        return None
    panels, width, features, dtype = op.panels, op.width, op.features, op.weight_format.dtype
    tile_m, accumulators = _tile_m(op, knob), _accumulators(op, knob)
    store, loop = store_panel(op), panel_loop(op)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        w_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        weight = T.match_buffer(w_handle, (panels, width, FEATURES), dtype)
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for panel in loop(panels):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer(
                        (tile_m * accumulators, FEATURES), "float32", scope="local"
                    )
                    for r in T.unroll(tile_m * accumulators):
                        for c in T.vectorized(FEATURES):
                            acc[r, c] = T.float32(0)
                    for step in T.serial(width // accumulators):
                        for s in T.unroll(accumulators):
                            for r in T.unroll(tile_m):
                                for c in T.vectorized(FEATURES):
                                    acc[r * accumulators + s, c] += x[
                                        T.min(block * tile_m + r, rows - 1),
                                        step * accumulators + s,
                                    ] * T.Cast("float32", weight[panel, step * accumulators + s, c])
                    for r in T.unroll(tile_m):
                        for s in T.unroll(accumulators - 1):
                            for c in T.vectorized(FEATURES):
                                acc[r * accumulators, c] += acc[r * accumulators + s + 1, c]
                        if block * tile_m + r < rows:
                            store(
                                y, acc, bias, residual, block * tile_m + r, panel, r * accumulators
                            )

    return keep_parameters(kernel, op)


def integer_linear(op: LinearSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` over integer weights, without scales of whole rows."""
    weight_format = op.weight_format
    if not weight_format.is_integer or weight_format.has_row_scales:
        return None
    panels, width, features, groups = op.panels, op.width, op.features, op.groups
    packing, elements, dtype = (
        weight_format.packing,
        weight_format.elements(width),
        weight_format.dtype,
    )
    quantized, store = _unpack(weight_format), store_panel(op)
    tile_m, loop = _tile_m(op, knob), panel_loop(op)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        q_handle: T.handle,
        s_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        integers = T.match_buffer(q_handle, (panels, elements, FEATURES), dtype)
        scales = T.match_buffer(s_handle, (panels, groups, FEATURES), "float16")
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for panel in loop(panels):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_m, FEATURES), "float32", scope="local")
                    weight = T.sblock_alloc_buffer((FEATURES,), "float32", scope="local")
                    for r in T.unroll(tile_m):
                        for c in T.vectorized(FEATURES):
                            acc[r, c] = T.float32(0)
                    for element in T.serial(elements):
                        for part in T.unroll(packing):
                            # The last element of a width that `packing` does not divide is not
                            # full.
                            if element * packing + part < width:
                                for c in T.vectorized(FEATURES):
                                    weight[c] = quantized(
                                        integers[panel, element, c], part
                                    ) * T.Cast(
                                        "float32", scales[panel, element * packing // GROUP_SIZE, c]
                                    )
                                for r in T.unroll(tile_m):
                                    for c in T.vectorized(FEATURES):
                                        acc[r, c] += (
                                            x[
                                                T.min(block * tile_m + r, rows - 1),
                                                element * packing + part,
                                            ]
                                            * weight[c]
                                        )
                    for r in T.unroll(tile_m):
                        if block * tile_m + r < rows:
                            store(y, acc, bias, residual, block * tile_m + r, panel, r)

    return keep_parameters(kernel, op)


def panel_loop(op: LinearSignature | PanelLinearSignature) -> Any:
    """Return the kind of loop over panels: parallel, but serial for one row of a small matrix.

    That one is finished before another thread has woken up.
    """
    matrix = op.weight_parameters[0]
    nbytes = prod(matrix.known_shape({})) * np.dtype(matrix.dtype).itemsize
    return T.serial if op.is_single_row and nbytes < _SERIAL_BYTES else T.parallel


def store_panel(op: LinearSignature | PanelLinearSignature) -> Any:
    """Return an inline function that adds bias and residual to a panel's sums and stores them.

    It takes the output, the sums, bias and residual, the row, the panel, and the index of the row
    of sums. The last panel may have lanes that belong to no feature.
    """
    features, has_bias, has_residual = op.features, op.bias, op.residual
    has_whole_panels = features % FEATURES == 0

    def value(
        total: tirx.Expr,
        bias: tirx.Buffer,
        residual: tirx.Buffer,
        row: tirx.Expr,
        at: tirx.Expr,
    ) -> tirx.Expr:
        if has_bias:
            total = total + bias[at]
        return total + residual[row, at] if has_residual else total

    @T.inline
    def store(
        y: tirx.Buffer,
        sums: tirx.Buffer,
        bias: tirx.Buffer,
        residual: tirx.Buffer,
        row: tirx.Expr,
        panel: tirx.Expr,
        at: tirx.Expr,
    ) -> None:
        if has_whole_panels:
            for c in T.vectorized(FEATURES):
                y[row, panel * FEATURES + c] = value(
                    sums[at, c], bias, residual, row, panel * FEATURES + c
                )
        else:
            for c in T.serial(FEATURES):
                if panel * FEATURES + c < features:
                    y[row, panel * FEATURES + c] = value(
                        sums[at, c], bias, residual, row, panel * FEATURES + c
                    )

    return store


def _unpack(weight_format: WeightFormat) -> Callable[[tirx.Expr, tirx.Expr], tirx.Expr]:
    """Return what reads the integer `part` of a stored element, as float32."""
    packing, zero = weight_format.packing, weight_format.zero_point
    bits = 32 // packing

    def quantized(element: tirx.Expr, part: tirx.Expr) -> tirx.Expr:
        if packing > 1:
            shifted = T.shift_right(element, T.Cast("uint32", part * bits))
            element = T.bitwise_and(shifted, T.uint32((1 << bits) - 1))
        value = T.Cast("float32", element)
        return value - T.float32(zero) if zero else value

    return quantized


def _tile_m(op: LinearSignature, knob: Config) -> int:
    """Return the rows of a register tile."""
    if op.is_single_row:
        return 1
    return knob("tile_m", default_tile_m(Target.current(allow_none=False)), _TILE_M_VALUES)


def _accumulators(op: LinearSignature, knob: Config) -> int:
    """Return the number of accumulators of a sum along K."""
    if not op.is_single_row:
        return 1
    values = [each for each in (1, 2, 4, 8, 16) if op.width % each == 0]
    return knob("accumulators", max(each for each in values if each <= _ACCUMULATORS), values)
