"""Row-wise functions on a CPU (normalizations and activations), and quantization of their results.

A normalization first reads its row for the statistics. Then every function computes one vector at a
time, which is stored, or quantized together with the groups that share its scale.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.activations import QUICK_GELU_SLOPE
from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.rowwise import inverse_scale
from mvlm.models.ops.signatures import QuantizeRowsSignature, RowFunction, RowwiseSignature
from mvlm.models.quantization import GROUP_SIZE, OFFSET_STEP, QMAX, byte_zero_point
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.dynamic_parallel import loop_of
from mvlm.schedules.cpu.exponential import erf, sigmoid
from mvlm.schedules.cpu.vectors import lanes, tile_width

# Accumulators of a normalization's sums: no knob, since the order of additions depends on it, which
# is to be the same for one row and for many.
_ACCUMULATORS = 64
# One row is short in any case, and a few of so many channels.
_SERIAL_WIDTH = 1024
_NORMALIZATIONS = ("rms_norm", "layer_norm")


def rowwise(op: RowwiseSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``rowwise``. It has no knobs."""
    del knob
    width, out_width = op.width, op.values
    vector, loop = lanes(out_width), _loop(op)
    statistics, value = _statistics(op), _value(op)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle, weight_handle: T.handle, bias_handle: T.handle, y_handle: T.handle
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        weight = T.match_buffer(weight_handle, (out_width,), "float32")
        bias = T.match_buffer(bias_handle, (out_width,), "float32")
        y = T.match_buffer(y_handle, (rows, out_width), "float32")
        for i in loop(rows):
            with T.sblock("row"):
                stats = T.sblock_alloc_buffer((2,), "float32", scope="local")
                statistics(stats, x, i)
                for part in T.serial(out_width // vector):
                    for c in T.vectorized(vector):
                        y[i, part * vector + c] = value(
                            x, weight, bias, stats, i, part * vector + c
                        )

    return keep_parameters(kernel, op)


def quantize_rows(op: QuantizeRowsSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``quantize_rows``, for whole groups of 32. It has no knobs."""
    del knob
    if op.values % GROUP_SIZE:  # the definition pads the last group with zeros
        return None
    width, out_width, groups, dtype = op.width, op.values, op.groups, op.dtype
    activation_scales, groups_per_scale = op.activation_scales, op.groups_per_scale
    has_zero_point, has_levels, zero_point = op.has_zero_point, op.has_levels, op.zero_point
    loop, qmax, byte_zero = _loop(op), QMAX[dtype], byte_zero_point(zero_point)
    statistics, value = _statistics(op), _value(op)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        weight_handle: T.handle,
        bias_handle: T.handle,
        integer_handle: T.handle,
        scale_handle: T.handle,
        correction_handle: T.handle,
        halves_handle: T.handle,
        sums_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        weight = T.match_buffer(weight_handle, (out_width,), "float32")
        bias = T.match_buffer(bias_handle, (out_width,), "float32")
        integers = T.match_buffer(integer_handle, (rows, out_width), dtype)
        scales = T.match_buffer(scale_handle, (rows, activation_scales), "float32")
        zero_point_correction = T.match_buffer(correction_handle, (rows, groups), "int32")
        zero_point_halves = T.match_buffer(halves_handle, (rows, groups, 2), "int16")
        offset_sums = T.match_buffer(sums_handle, (rows, groups), "float32")
        for i in loop(rows):
            with T.sblock("row"):
                stats = T.sblock_alloc_buffer((2,), "float32", scope="local")
                values = T.sblock_alloc_buffer(
                    (groups_per_scale, GROUP_SIZE), "float32", scope="local"
                )
                absmax = T.sblock_alloc_buffer((GROUP_SIZE,), "float32", scope="local")
                quantized = T.sblock_alloc_buffer((GROUP_SIZE,), "int32", scope="local")

                @T.inline
                def load_group(s, g):
                    first = T.meta_var((s * groups_per_scale + g) * GROUP_SIZE)
                    for c in T.vectorized(GROUP_SIZE):
                        values[g, c] = value(x, weight, bias, stats, i, first + c)
                    for c in T.vectorized(GROUP_SIZE):
                        absmax[c] = T.max(absmax[c], T.abs(values[g, c]))

                @T.inline
                def store_scale(s):
                    """Store a scale, and leave its inverse in `absmax[0]`."""
                    for c in T.vectorized(16):
                        absmax[c] = T.max(absmax[c], absmax[16 + c])
                    for c in T.vectorized(8):
                        absmax[c] = T.max(absmax[c], absmax[8 + c])
                    for c in T.vectorized(4):
                        absmax[c] = T.max(absmax[c], absmax[4 + c])
                    for c in T.vectorized(2):
                        absmax[c] = T.max(absmax[c], absmax[2 + c])
                    absmax[0] = T.max(absmax[0], absmax[1])
                    scales[i, s] = absmax[0] / T.float32(qmax)
                    absmax[0] = inverse_scale(absmax[0], qmax)

                @T.inline
                def store_correction(group):
                    for c in T.vectorized(16):
                        quantized[c] = quantized[c] + quantized[16 + c]
                    for c in T.vectorized(8):
                        quantized[c] = quantized[c] + quantized[8 + c]
                    for c in T.vectorized(4):
                        quantized[c] = quantized[c] + quantized[4 + c]
                    # Four sums are left, each of every fourth integer.
                    quantized[0] = quantized[0] + quantized[1]
                    quantized[1] = quantized[2] + quantized[3]
                    zero_point_correction[i, group] = T.int32(-byte_zero) * (
                        quantized[0] + quantized[1]
                    )
                    if has_levels:
                        for half in T.unroll(2):
                            zero_point_halves[i, group, half] = T.Cast(
                                "int16", T.int32(-zero_point) * quantized[half]
                            )
                        offset_sums[i, group] = T.float32(OFFSET_STEP) * T.Cast(
                            "float32", quantized[0] + quantized[1]
                        )

                @T.inline
                def store_group(s, g):
                    group = T.meta_var(s * groups_per_scale + g)
                    for c in T.vectorized(GROUP_SIZE):
                        quantized[c] = T.Cast("int32", T.nearbyint(values[g, c] * absmax[0]))
                    for c in T.vectorized(GROUP_SIZE):
                        integers[i, group * GROUP_SIZE + c] = T.Cast(dtype, quantized[c])
                    if has_zero_point:
                        store_correction(group)

                statistics(stats, x, i)
                for s in T.serial(activation_scales):
                    for c in T.vectorized(GROUP_SIZE):
                        absmax[c] = T.float32(0)
                    for g in T.serial(groups_per_scale):
                        load_group(s, g)
                    store_scale(s)
                    for g in T.serial(groups_per_scale):
                        store_group(s, g)

    return keep_parameters(kernel, op)


def _loop(op: RowFunction) -> Any:
    return loop_of(op, op.width, serial_of_one=inf, serial_of_few=_SERIAL_WIDTH + 1)


def _statistics(op: RowFunction) -> Any:
    """Return an inline function that computes a row's mean and inverse deviation, if needed.

    It takes the buffer of the two results, the input and the row.
    """
    width, eps = op.width, op.eps
    is_needed, has_mean = op.prologue in _NORMALIZATIONS, op.prologue == "layer_norm"
    accumulators = tile_width(width, _ACCUMULATORS)

    @T.inline
    def compute(stats: tirx.Buffer, x: tirx.Buffer, i: tirx.Expr) -> None:
        if is_needed:
            with T.sblock("statistics"):
                sums = T.sblock_alloc_buffer((accumulators,), "float32", scope="local")
                if has_mean:
                    for c in T.vectorized(accumulators):
                        sums[c] = T.float32(0)
                    for part in T.serial(width // accumulators):
                        for c in T.vectorized(accumulators):
                            sums[c] += x[i, part * accumulators + c]
                    stats[0] = T.float32(0)
                    for c in T.serial(accumulators):
                        stats[0] += sums[c]
                    stats[0] = stats[0] / T.float32(width)
                for c in T.vectorized(accumulators):
                    sums[c] = T.float32(0)
                for part in T.serial(width // accumulators):
                    for c in T.vectorized(accumulators):
                        value = T.meta_var(_centred(x, stats, i, part * accumulators + c, has_mean))
                        sums[c] = T.fma(value, value, sums[c])
                stats[1] = T.float32(0)
                for c in T.serial(accumulators):
                    stats[1] += sums[c]
                stats[1] = T.rsqrt(stats[1] / T.float32(width) + T.float32(eps))

    return compute


def _value(op: RowFunction) -> Callable[..., tirx.Expr]:
    """Return the function itself: it gives the expression of one value, or of a vector."""
    function, width = op.prologue, op.values

    def value(
        x: tirx.Buffer,
        weight: tirx.Buffer,
        bias: tirx.Buffer,
        stats: tirx.Buffer,
        i: tirx.Expr,
        k: tirx.Expr,
    ) -> tirx.Expr:
        if function == "rms_norm":
            return x[i, k] * stats[1] * weight[k]
        if function == "layer_norm":
            return T.fma((x[i, k] - stats[0]) * stats[1], weight[k], bias[k])
        if function == "silu_product":
            return x[i, k] * sigmoid(x[i, k]) * x[i, width + k]
        if function == "quick_gelu":
            return x[i, k] * sigmoid(x[i, k] * T.float32(QUICK_GELU_SLOPE))
        if function == "gelu":
            return x[i, k] * T.float32(0.5) * (T.float32(1) + erf(x[i, k] * T.float32(0.5**0.5)))
        return x[i, k]

    return value


def _centred(
    x: tirx.Buffer, stats: tirx.Buffer, i: tirx.Expr, k: tirx.Expr, has_mean: bool
) -> tirx.Expr:
    return x[i, k] - stats[0] if has_mean else x[i, k]
