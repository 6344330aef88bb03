"""Row-wise functions on a CPU (normalizations and activations), and quantization of their results.

A normalization first reads its row for the statistics. Then every function computes one vector at a
time, which is stored, or quantized together with the groups that share its scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.exponential import erf, sigmoid
from mvlm.schedules.cpu.integers import QMAX, inverse_scale
from mvlm.schedules.cpu.vectors import lanes, tile_width
from mvlm.schedules.signature import attribute, is_single_row, keep_parameters, parameter_types

_GROUP = 32
# Accumulators of a normalization's sums.
_ACCUMULATORS = 64
_NORMALIZATIONS = ("rms_norm", "layer_norm")


def rowwise(definition: tirx.PrimFunc, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``rowwise``."""
    x_type, *weight_types, y_type = parameter_types(definition)
    width, out_width = int(x_type.shape[1]), int(y_type.shape[1])
    vector, loop = lanes(out_width), _loop(x_type)
    statistics, value = _statistics(definition, width, knob), _value(definition, out_width)

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

    return keep_parameters(kernel, (True, *_kept(weight_types), True))


def quantize_rows(definition: tirx.PrimFunc, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``quantize_rows``, for whole groups of 32."""
    zero_point = attribute(definition, "zero_point", 0)
    has_zero_point = zero_point != 0
    x_type, *weight_types = parameter_types(definition)[: -3 if has_zero_point else -2]
    integer_type, scale_type = parameter_types(definition)[-3 if has_zero_point else -2 :][:2]
    width, out_width = int(x_type.shape[1]), int(integer_type.shape[1])
    halves = 2 if attribute(definition, "prologue", "") == "silu_product" else 1
    if width != halves * out_width:  # the definition pads the last group with zeros
        return None
    groups, loop, dtype = out_width // _GROUP, _loop(x_type), str(integer_type.dtype)
    activation_scales = int(scale_type.shape[1])
    groups_per_scale = groups // activation_scales
    qmax = QMAX[dtype]
    statistics, value = _statistics(definition, width, knob), _value(definition, out_width)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        weight_handle: T.handle,
        bias_handle: T.handle,
        integer_handle: T.handle,
        scale_handle: T.handle,
        correction_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        weight = T.match_buffer(weight_handle, (out_width,), "float32")
        bias = T.match_buffer(bias_handle, (out_width,), "float32")
        integers = T.match_buffer(integer_handle, (rows, out_width), dtype)
        scales = T.match_buffer(scale_handle, (rows, activation_scales), "float32")
        zero_point_correction = T.match_buffer(correction_handle, (rows, groups), "int32")
        for i in loop(rows):
            with T.sblock("row"):
                stats = T.sblock_alloc_buffer((2,), "float32", scope="local")
                values = T.sblock_alloc_buffer((groups_per_scale, _GROUP), "float32", scope="local")
                absmax = T.sblock_alloc_buffer((_GROUP,), "float32", scope="local")
                quantized = T.sblock_alloc_buffer((_GROUP,), "int32", scope="local")
                statistics(stats, x, i)
                for scale_index in T.serial(activation_scales):
                    for c in T.vectorized(_GROUP):
                        absmax[c] = T.float32(0)
                    for g in T.serial(groups_per_scale):
                        at = T.meta_var((scale_index * groups_per_scale + g) * _GROUP)
                        for c in T.vectorized(_GROUP):
                            values[g, c] = value(x, weight, bias, stats, i, at + c)
                        for c in T.vectorized(_GROUP):
                            absmax[c] = T.max(absmax[c], T.abs(values[g, c]))
                    for c in T.vectorized(16):
                        absmax[c] = T.max(absmax[c], absmax[16 + c])
                    for c in T.vectorized(8):
                        absmax[c] = T.max(absmax[c], absmax[8 + c])
                    for c in T.vectorized(4):
                        absmax[c] = T.max(absmax[c], absmax[4 + c])
                    for c in T.vectorized(2):
                        absmax[c] = T.max(absmax[c], absmax[2 + c])
                    absmax[0] = T.max(absmax[0], absmax[1])
                    scales[i, scale_index] = absmax[0] / T.float32(qmax)
                    absmax[0] = inverse_scale(absmax[0], qmax)
                    for g in T.serial(groups_per_scale):
                        group = T.meta_var(scale_index * groups_per_scale + g)
                        for c in T.vectorized(_GROUP):
                            quantized[c] = T.Cast("int32", T.nearbyint(values[g, c] * absmax[0]))
                        for c in T.vectorized(_GROUP):
                            integers[i, group * _GROUP + c] = T.Cast(dtype, quantized[c])
                        if has_zero_point:
                            for c in T.vectorized(16):
                                quantized[c] = quantized[c] + quantized[16 + c]
                            for c in T.vectorized(8):
                                quantized[c] = quantized[c] + quantized[8 + c]
                            for c in T.vectorized(4):
                                quantized[c] = quantized[c] + quantized[4 + c]
                            zero_point_correction[i, group] = T.int32(-zero_point) * (
                                quantized[0] + quantized[1] + quantized[2] + quantized[3]
                            )

    return keep_parameters(kernel, (True, *_kept(weight_types), True, True, has_zero_point))


def _loop(x_type: Any) -> Any:
    """One row is finished before another thread would have woken up."""
    return T.serial if is_single_row(x_type) else T.parallel


def _kept(weight_types: list[Any]) -> tuple[bool, bool]:
    return len(weight_types) > 0, len(weight_types) > 1


def _statistics(definition: tirx.PrimFunc, width: int, knob: Config) -> Any:
    """Return an inline function that computes a row's mean and inverse deviation, if needed.

    It takes the buffer of the two results, the input and the row.
    """
    function, eps = attribute(definition, "prologue", ""), attribute(definition, "eps", 0.0)
    is_needed, has_mean = function in _NORMALIZATIONS, function == "layer_norm"
    accumulators = tile_width(
        width, knob("accumulators", _ACCUMULATORS, (16, 32, 64, 128)) if is_needed else 1
    )

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
                        sums[c] += _square(_centred(x, stats, i, part * accumulators + c, has_mean))
                stats[1] = T.float32(0)
                for c in T.serial(accumulators):
                    stats[1] += sums[c]
                stats[1] = T.rsqrt(stats[1] / T.float32(width) + T.float32(eps))

    return compute


def _value(definition: tirx.PrimFunc, width: int) -> Callable[..., tirx.Expr]:
    """Return the function itself: it gives the expression of one value, or of a vector."""
    function = attribute(definition, "prologue", "")

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
            return (x[i, k] - stats[0]) * stats[1] * weight[k] + bias[k]
        if function == "silu_product":
            return x[i, k] * sigmoid(x[i, k]) * x[i, width + k]
        if function == "quick_gelu":
            return x[i, k] * sigmoid(x[i, k] * T.float32(1.702))
        if function == "gelu":
            return x[i, k] * T.float32(0.5) * (T.float32(1) + erf(x[i, k] * T.float32(0.5**0.5)))
        return x[i, k]

    return value


def _centred(
    x: tirx.Buffer, stats: tirx.Buffer, i: tirx.Expr, k: tirx.Expr, has_mean: bool
) -> tirx.Expr:
    return x[i, k] - stats[0] if has_mean else x[i, k]


def _square(value: tirx.Expr) -> tirx.Expr:
    return value * value
