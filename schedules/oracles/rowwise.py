"""Row-wise functions, and the quantization of their results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from mvlm.schedules.oracles.numbers import random_array, unwritten
from mvlm.schedules.signature import attribute, parameter_types

Array = npt.NDArray[Any]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def rowwise(name: str, eps: float, x: Array, *weights: Array) -> Array:
    """Return the values of a row-wise function in float64."""
    return np.asarray(_rowwise(name, eps, x.astype(np.float64), *weights))


def _rowwise(name: str, eps: float, x: Array, *weights: Array) -> Any:
    if name == "rms_norm":
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weights[0]
    if name == "layer_norm":
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + eps) * weights[0] + weights[1]
    if name == "silu_product":
        gate, up = np.split(x, 2, axis=-1)
        return gate * _sigmoid(gate) * up
    if name == "quick_gelu":
        return x * _sigmoid(1.702 * x)
    if name == "gelu":
        return 0.5 * x * (1 + _erf(x / np.sqrt(2)))
    return x


def rowwise_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``rowwise``."""
    types = parameter_types(definition)
    arguments = [random_array(each, random) for each in types[:-1]] + [unwritten(types[-1])]

    def expect() -> Any:
        return {len(arguments) - 1: _values(definition, arguments[:-1])}

    return arguments, expect


def quantize_rows_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``quantize_rows``.

    A value's last bit may turn a tie of rounding over: an integer may be off by one.
    """
    types, zero_point = parameter_types(definition), attribute(definition, "zero_point", 0)
    outs = 3 if zero_point else 2
    arguments = [random_array(each, random) for each in types[:-outs]]
    arguments += [unwritten(each) for each in types[-outs:]]
    first = len(arguments) - outs

    def expect() -> Any:
        values, error = _values(definition, arguments[:first])
        dtype, activation_scales = str(types[first].dtype), int(types[first + 1].shape[1])
        width = int(types[first].shape[1])
        whole = np.zeros((len(values), width), np.float32)
        whole[:, : values.shape[1]] = values
        groups_per_scale = width // 32 // activation_scales
        integers, scales = _quantized(whole, dtype, groups_per_scale)
        found: dict[int, Any] = {
            first: (integers, 1.0),
            first + 1: (scales, error.max() + 1e-6 * scales),
        }
        if zero_point:
            sums = integers.reshape(len(integers), -1, 32).astype(np.int64).sum(-1)
            found[first + 2] = (-zero_point * sums, 32.0 * zero_point)
        return found

    return arguments, expect


def _quantized(x: Array, dtype: str, groups_per_scale: int) -> tuple[Array, Array]:
    """As `arithmetic.quantize_rows`, which is scalar and too slow for a real model's rows."""
    qmax = np.float32({"int8": 127, "int16": 8191}[dtype])
    blocks = x.reshape(len(x), -1, 32 * groups_per_scale)
    absmax = np.abs(blocks).max(-1)
    inverse = np.where(absmax < 1e-30, 0, qmax / np.maximum(absmax, np.float32(1e-30)))
    integers = np.rint(blocks * inverse[..., None]).astype(dtype)
    return integers.reshape(x.shape), absmax / qmax


def _values(definition: tirx.PrimFunc, arguments: list[Array]) -> tuple[Array, Array]:
    """Return the values, and the allowed errors: float32's rounding of intermediate results."""
    name, eps = attribute(definition, "prologue", ""), attribute(definition, "eps", 0.0)
    values = rowwise(name, eps, *arguments)
    size = 1 + np.abs(arguments[0]).max(-1, keepdims=True).astype(np.float64)
    if len(arguments) > 1:
        size = size * np.abs(arguments[1]).max() + np.abs(arguments[-1]).max()
    elif name == "silu_product":
        size = size * size
    return values, np.broadcast_to(1e-6 * size, values.shape)


def _sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2  # as 1 / (1 + e^-x), without its overflow
