"""Linear layers over panels, for all weight formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.ops.signatures import LinearSignature, PanelLinearSignature
from mvlm.models.panels import FEATURES
from mvlm.models.quantization import GROUP_SIZE, QMAX
from mvlm.schedules.oracles.numbers import random_arguments

Array = npt.NDArray[Any]
_EPS = float(np.finfo(np.float32).eps)


def linear_case(
    op: LinearSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``linear``: float32 activations, float or packed weights."""
    arguments = random_arguments(op, extents, random)
    weight_format = op.weight_format
    if weight_format.is_integer:
        scales = random.uniform(0.01, 0.1, arguments["scales"].shape)
        arguments["scales"] = scales.astype(weight_format.scale_dtype)

    def expect() -> Any:
        if weight_format.is_integer:
            packing, zero = weight_format.packing, weight_format.zero_point
            words, scales = arguments["integers"], arguments["scales"]
            weight = _unpacked(words, scales, packing, zero, op.width)
        else:
            weight = arguments["weight"].astype(np.float64)
        matrix = np.moveaxis(weight, 2, 1).reshape(-1, op.width)[: op.features].T
        x = arguments["x"].astype(np.float64)
        bound = (op.width + 4) * _EPS * (np.abs(x) @ np.abs(matrix))
        return {"y": _with_addends(x @ matrix, bound, arguments)}

    return arguments, expect


def panel_linear_case(
    op: PanelLinearSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``panel_linear``: integers on both sides, exact within a group."""
    arguments, bits = random_arguments(op, extents, random), op.layout.bits
    qmax, zero = QMAX[op.layout.activations], op.layout.zero
    x = random.integers(-qmax, qmax, arguments["x"].shape, arguments["x"].dtype, endpoint=True)
    x_scales = random.uniform(0.01, 0.1, arguments["x_scales"].shape).astype(np.float32)
    arguments |= {"x": x, "x_scales": x_scales}
    if op.has_zero_point:
        sums = x.reshape(len(x), -1, GROUP_SIZE).astype(np.int32).sum(-1, dtype=np.int32)
        arguments["zero_point_correction"] = np.int32(-zero) * sums
    else:  # of 14 bits
        shape = arguments["weight"].shape
        arguments["weight"] = random.integers(-qmax, qmax, shape, np.int16, endpoint=True)
    scales = arguments["scales"]
    if scales.dtype == np.float16:
        arguments["scales"] = random.uniform(0.01, 0.1, scales.shape).astype(np.float16)

    def expect() -> Any:
        quantized = unpack_panels(arguments["weight"], bits)[: op.features] - zero
        scales = _rows(arguments["scales"])[: op.features].astype(np.float64)
        if "row_scales" in arguments:
            scales *= arguments["row_scales"].reshape(-1)[: op.features, None]
        total = np.zeros((len(x), op.features))
        size = np.zeros_like(total)
        for group in range(op.groups):
            part = slice(GROUP_SIZE * group, GROUP_SIZE * (group + 1))
            x_scale = x_scales[:, group // op.groups_per_scale, None].astype(np.float64)
            factors = x_scale * op.layout.unit * scales[:, group]
            left, right = x[:, part].astype(np.float64), quantized[:, part].astype(np.float64)
            total += left @ right.T * factors
            size += np.abs(left) @ np.abs(right).T * np.abs(factors)
        bound = (op.groups + 7) * _EPS * size
        return {"y": _with_addends(total, bound, arguments)}

    return arguments, expect


def unpack_panels(panels: Array, bits: int) -> Array:
    """Return the quantized values ``(panels * 16, K)`` of integer panels (see `models.panels`)."""
    count, groups, steps, width = panels.shape
    depth = width // FEATURES
    unpacked = panels.reshape(count, groups, steps, FEATURES, depth).astype(np.int32)
    halves = [unpacked & 15, unpacked >> 4] if bits == 4 else [unpacked]
    # panel, group, half, step, feature, j -> panel, feature, group, half, step, j
    joined = np.stack(halves, 2).transpose(0, 4, 1, 2, 3, 5)
    return np.ascontiguousarray(joined).reshape(count * FEATURES, groups * GROUP_SIZE)


def _rows(panels: Array) -> Array:
    """Return ``(panels * 16, count)`` of interleaved panels ``(panels, count, 16)``."""
    return np.ascontiguousarray(np.moveaxis(panels, 2, 1)).reshape(-1, panels.shape[1])


def _unpacked(words: Array, scales: Array, packing: int, zero: int, width: int) -> Array:
    """Return weights ``(panels, K, 16)`` in float64."""
    bits = 32 // packing
    if packing > 1:
        parts = [
            (words >> np.uint32(bits * part)) & np.uint32((1 << bits) - 1)
            for part in range(packing)
        ]
        words = np.stack(parts, 2).reshape(len(words), -1, FEATURES)
    quantized = words[:, :width].astype(np.float64) - zero
    return quantized * np.repeat(scales.astype(np.float64), GROUP_SIZE, axis=1)[:, :width]


def _with_addends(
    total: Array, bound: Array, arguments: Mapping[str, Array]
) -> tuple[Array, Array]:
    for each in (arguments[name] for name in ("bias", "residual") if name in arguments):
        total = total + each
        bound = bound + _EPS * (np.abs(each) + np.abs(total))
    return total, bound + 1e-30
