"""Linear layers with float32 activations on a CPU, over panels of 16 features.

A register tile of some rows and one panel is accumulated while the panel is read once from
beginning to end: each step loads the weights of 16 features, converts them, and multiplies them
with one input of each row. A row block that is not full computes its last row again instead of
branching in the inner loop, and does not store it. A single row would be bound by the latency of
its dependent additions: it has several accumulators, each of every n-th element along K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.vectors import default_tile_m
from mvlm.schedules.signature import (
    attribute,
    extents,
    is_single_row,
    keep_parameters,
    parameter_types,
)

_GROUP = 32
_FEATURES = 16
# Accumulators of a single row.
_ACCUMULATORS = 8
_TILE_M_VALUES = (1, 2, 3, 4, 6, 8, 10, 12, 16)
# Bytes of weights that one thread reads in the microseconds that waking another one takes.
_SERIAL_BYTES = 1 << 18


def float_linear(definition: tirx.PrimFunc, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` over float32 or float16 weights."""
    if _packing(definition):
        return None
    x_type, w_type, *_, y_type = parameter_types(definition)
    panels, width, _ = extents(w_type)
    features, dtype = int(y_type.shape[1]), str(w_type.dtype)
    tile_m, accumulators = _tile_m(x_type, knob), _accumulators(x_type, width, knob)
    epilogue = Epilogue.of(definition)
    store, loop = epilogue.store_panel(features), panel_loop(x_type, w_type)

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
        w = T.match_buffer(w_handle, (panels, width, _FEATURES), dtype)
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for panel in loop(panels):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer(
                        (tile_m * accumulators, _FEATURES), "float32", scope="local"
                    )
                    for r in T.unroll(tile_m * accumulators):
                        for c in T.vectorized(_FEATURES):
                            acc[r, c] = T.float32(0)
                    for step in T.serial(width // accumulators):
                        for s in T.unroll(accumulators):
                            for r in T.unroll(tile_m):
                                for c in T.vectorized(_FEATURES):
                                    acc[r * accumulators + s, c] += x[
                                        T.min(block * tile_m + r, rows - 1),
                                        step * accumulators + s,
                                    ] * T.Cast("float32", w[panel, step * accumulators + s, c])
                    for r in T.unroll(tile_m):
                        for s in T.unroll(accumulators - 1):
                            for c in T.vectorized(_FEATURES):
                                acc[r * accumulators, c] += acc[r * accumulators + s + 1, c]
                        if block * tile_m + r < rows:
                            store(
                                y, acc, bias, residual, block * tile_m + r, panel, r * accumulators
                            )

    return keep_parameters(kernel, (True, True, epilogue.bias, epilogue.residual, True))


def integer_linear(
    definition: tirx.PrimFunc, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Build the kernel of ``linear`` over integer weights."""
    packing = _packing(definition)
    if not packing:
        return None
    x_type, q_type, scales_type, *_, y_type = parameter_types(definition)
    width, features = int(x_type.shape[1]), int(y_type.shape[1])
    panels, elements, _ = extents(q_type)
    groups, dtype = int(scales_type.shape[1]), str(q_type.dtype)
    epilogue = Epilogue.of(definition)
    quantized, store = _unpack(definition), epilogue.store_panel(features)
    tile_m, loop = _tile_m(x_type, knob), panel_loop(x_type, q_type)

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
        integers = T.match_buffer(q_handle, (panels, elements, _FEATURES), dtype)
        scales = T.match_buffer(s_handle, (panels, groups, _FEATURES), "float16")
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for panel in loop(panels):
            for block in T.serial((rows + tile_m - 1) // tile_m):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((tile_m, _FEATURES), "float32", scope="local")
                    weight = T.sblock_alloc_buffer((_FEATURES,), "float32", scope="local")
                    for r in T.unroll(tile_m):
                        for c in T.vectorized(_FEATURES):
                            acc[r, c] = T.float32(0)
                    for element in T.serial(elements):
                        for part in T.unroll(packing):
                            # The last element of a width that `packing` does not divide is not
                            # full.
                            if element * packing + part < width:
                                for c in T.vectorized(_FEATURES):
                                    weight[c] = quantized(
                                        integers[panel, element, c], part
                                    ) * T.Cast(
                                        "float32", scales[panel, element * packing // _GROUP, c]
                                    )
                                for r in T.unroll(tile_m):
                                    for c in T.vectorized(_FEATURES):
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

    return keep_parameters(kernel, (True, True, True, epilogue.bias, epilogue.residual, True))


def panel_loop(x_type: Any, w_type: Any) -> Any:
    """Return the kind of loop over panels: parallel, but serial for one row of a small matrix.

    That one is finished before another thread has woken up.
    """
    nbytes = prod(extents(w_type)) * np.dtype(str(w_type.dtype)).itemsize
    return T.serial if is_single_row(x_type) and nbytes < _SERIAL_BYTES else T.parallel


@dataclass(frozen=True)
class Epilogue:
    """What a linear layer adds to its products before it stores them.

    Attributes:
        bias: Whether there is a bias.
        residual: Whether there is a residual.
    """

    bias: bool
    residual: bool

    @classmethod
    def of(cls, definition: tirx.PrimFunc) -> Epilogue:
        """Read it from the definition."""
        return cls(attribute(definition, "bias", False), attribute(definition, "residual", False))

    def store_panel(self, features: int) -> Any:
        """Return an inline function that stores a panel's sums.

        It takes the output, the sums, bias and residual, the row, the panel, and the index of the
        row of sums. The last panel may have lanes that belong to no feature.
        """
        has_whole_panels = features % _FEATURES == 0

        def value(
            total: tirx.Expr,
            bias: tirx.Buffer,
            residual: tirx.Buffer,
            row: tirx.Expr,
            at: tirx.Expr,
        ) -> tirx.Expr:
            if self.bias:
                total = total + bias[at]
            return total + residual[row, at] if self.residual else total

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
                for c in T.vectorized(_FEATURES):
                    y[row, panel * _FEATURES + c] = value(
                        sums[at, c], bias, residual, row, panel * _FEATURES + c
                    )
            else:
                for c in T.serial(_FEATURES):
                    if panel * _FEATURES + c < features:
                        y[row, panel * _FEATURES + c] = value(
                            sums[at, c], bias, residual, row, panel * _FEATURES + c
                        )

        return store


def _packing(definition: tirx.PrimFunc) -> int:
    """Return how many weights one stored element holds; 0 for floats."""
    return int(definition.attrs["mvlm.packing"]) if "mvlm.packing" in definition.attrs else 0


def _unpack(definition: tirx.PrimFunc) -> Callable[[tirx.Expr, tirx.Expr], tirx.Expr]:
    """Return what reads the integer `part` of a stored element, as float32."""
    packing, zero = _packing(definition), int(definition.attrs["mvlm.zero_point"])
    bits = 32 // packing

    def quantized(element: tirx.Expr, part: tirx.Expr) -> tirx.Expr:
        if packing > 1:
            shifted = T.shift_right(element, T.Cast("uint32", part * bits))
            element = T.bitwise_and(shifted, T.uint32((1 << bits) - 1))
        value = T.Cast("float32", element)
        return value - T.float32(zero) if zero else value

    return quantized


def _tile_m(x_type: Any, knob: Config) -> int:
    """Return the rows of a register tile."""
    if is_single_row(x_type):
        return 1
    return knob("tile_m", default_tile_m(Target.current(allow_none=False)), _TILE_M_VALUES)


def _accumulators(x_type: Any, width: int, knob: Config) -> int:
    """Return the number of accumulators of a sum along K."""
    if not is_single_row(x_type):
        return 1
    values = [accumulators for accumulators in (1, 2, 4, 8, 16) if width % accumulators == 0]
    return knob("accumulators", max(each for each in values if each <= _ACCUMULATORS), values)
