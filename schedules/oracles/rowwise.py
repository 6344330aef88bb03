"""Row-wise functions, and the quantization of their results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.activations import QUICK_GELU_SLOPE
from mvlm.models.ops.signatures import QuantizeRowsSignature, RowFunction, RowwiseSignature
from mvlm.models.quantization import (
    GROUP_SIZE,
    MIN_ABSMAX,
    OFFSET_STEP,
    QMAX,
    byte_zero_point,
    is_of_levels,
)
from mvlm.schedules.oracles.numbers import random_arguments

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
        return x * _sigmoid(QUICK_GELU_SLOPE * x)
    if name == "gelu":
        return 0.5 * x * (1 + _erf(x / np.sqrt(2)))
    return x


def rowwise_case(
    op: RowwiseSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``rowwise``."""
    arguments = random_arguments(op, extents, random)
    return arguments, lambda: {"y": _values(op, arguments)}


def quantize_rows_case(
    op: QuantizeRowsSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``quantize_rows``.

    A value's last bit may turn a tie of rounding over: an integer may be off by one.
    """
    arguments = random_arguments(op, extents, random)

    def expect() -> Any:
        values, error = _values(op, arguments)
        whole = np.zeros((len(values), op.groups * GROUP_SIZE), np.float32)
        whole[:, : op.values] = values
        integers, scales = _quantized(whole, op.dtype, op.groups_per_scale)
        found: dict[str, Any] = {
            "integers": (integers, 1.0),
            "scales": (scales, error.max() + 1e-6 * scales),
        }
        if op.has_zero_point:
            off = float(GROUP_SIZE * byte_zero_point(op.zero_point))
            for name, each in zero_point_arguments(integers, op.zero_point).items():
                found[name] = (each, off)
        return found

    return arguments, expect


def zero_point_arguments(integers: Array, zero_point: int) -> dict[str, Array]:
    """Return what accounts for a zero point of weights, by the parameters' names.

    Args:
        integers: ``(M, groups * 32)``.
        zero_point: The zero point; there are no arguments for 0.
    """
    if zero_point == 0:
        return {}
    pairs = integers.reshape(len(integers), -1, GROUP_SIZE // 4, 2, 2).astype(np.int32)
    sums = pairs.sum((2, 4), dtype=np.int32)
    whole = -byte_zero_point(zero_point) * sums.sum(-1, dtype=np.int32)
    total = {"zero_point_correction": whole}
    if is_of_levels(zero_point):
        total["zero_point_halves"] = (-zero_point * sums).astype(np.int16)
        total["offset_sums"] = sums.sum(-1).astype(np.float32) * np.float32(OFFSET_STEP)
    return total


def _quantized(x: Array, dtype: str, groups_per_scale: int) -> tuple[Array, Array]:
    """As `arithmetic.quantize_rows`, which is scalar and too slow for a real model's rows."""
    qmax, least = np.float32(QMAX[dtype]), np.float32(MIN_ABSMAX)
    blocks = x.reshape(len(x), -1, GROUP_SIZE * groups_per_scale)
    absmax = np.abs(blocks).max(-1)
    inverse = np.where(absmax < least, 0, qmax / np.maximum(absmax, least))
    integers = np.rint(blocks * inverse[..., None]).astype(dtype)
    return integers.reshape(x.shape), absmax / qmax


def _values(op: RowFunction, arguments: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the values, and the allowed errors: float32's rounding of intermediate results."""
    x, weights = arguments["x"], [arguments[name] for name in op.weights]
    values = rowwise(op.prologue, op.eps, x, *weights)
    size = 1 + np.abs(x).max(-1, keepdims=True).astype(np.float64)
    if weights:
        size = size * np.abs(weights[0]).max() + np.abs(weights[-1]).max()
    elif op.prologue == "silu_product":
        size = size * size
    return values, np.broadcast_to(1e-6 * size, values.shape)


def _sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2  # as 1 / (1 + e^-x), without its overflow
