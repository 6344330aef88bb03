"""Linear layers over panels, for all weight formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from mvlm.schedules.oracles.numbers import random_array, unwritten
from mvlm.schedules.signature import attribute, parameter_types

Array = npt.NDArray[Any]
_EPS = float(np.finfo(np.float32).eps)
_GROUP, _FEATURES = 32, 16
# Of 16-bit activations: 32 products of two such add up within 32 bits.
_QMAX = {"int8": 127, "int16": 8191}


def linear_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``linear``: float32 activations, float or packed weights."""
    types = parameter_types(definition)
    arguments = [random_array(each, random) for each in types[:-1]] + [unwritten(types[-1])]
    packing = attribute(definition, "packing", 0)
    if packing:
        arguments[2] = random.uniform(0.01, 0.1, arguments[2].shape).astype(np.float16)
    features, width = arguments[-1].shape[1], arguments[0].shape[1]

    def expect() -> Any:
        if packing:
            zero = attribute(definition, "zero_point", 0)
            weight = _unpacked(arguments[1], arguments[2], packing, zero, width)
        else:
            weight = arguments[1].astype(np.float64)
        matrix = np.moveaxis(weight, 2, 1).reshape(-1, width)[:features].T
        x = arguments[0].astype(np.float64)
        bound = (width + 4) * _EPS * (np.abs(x) @ np.abs(matrix))
        added = arguments[3 if packing else 2 : -1]
        return {len(arguments) - 1: _with_addends(x @ matrix, bound, added)}

    return arguments, expect


def panel_linear_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``panel_linear``: integers on both sides, exact within a group."""
    types, bits = parameter_types(definition), int(definition.attrs["mvlm.bits"])
    has_zero_point, has_row_scales = bits < 16, attribute(definition, "row_scales", False)
    arguments = [random_array(each, random) for each in types[:-1]] + [unwritten(types[-1])]
    qmax = _QMAX[str(types[0].dtype)]
    x = random.integers(-qmax, qmax, arguments[0].shape, arguments[0].dtype, endpoint=True)
    arguments[0] = x
    arguments[1] = random.uniform(0.01, 0.1, arguments[1].shape).astype(np.float32)
    panels_at, zero = (3, 1 << (bits - 1)) if has_zero_point else (2, 0)
    if has_zero_point:
        sums = x.reshape(len(x), -1, _GROUP).astype(np.int32).sum(-1, dtype=np.int32)
        arguments[2] = np.int32(-zero) * sums
    else:  # of 14 bits
        shape = arguments[panels_at].shape
        arguments[panels_at] = random.integers(-qmax, qmax, shape, np.int16, endpoint=True)
    scales = arguments[panels_at + 1]
    if scales.dtype == np.float16:
        low, high = 0.01, 0.1
        arguments[panels_at + 1] = random.uniform(low, high, scales.shape).astype(np.float16)
    rest = panels_at + 2 + has_row_scales
    features, unit = arguments[-1].shape[1], attribute(definition, "unit", 1.0)

    def expect() -> Any:
        quantized = unpack_panels(arguments[panels_at], bits)[:features] - zero
        group_scales = _rows(arguments[panels_at + 1])[:features].astype(np.float64)
        if has_row_scales:
            group_scales *= arguments[panels_at + 2].reshape(-1)[:features, None]
        groups = group_scales.shape[1]
        groups_per_scale = groups // arguments[1].shape[1]
        total = np.zeros((len(x), features))
        size = np.zeros_like(total)
        for group in range(groups):
            part = slice(_GROUP * group, _GROUP * (group + 1))
            x_scale = arguments[1][:, group // groups_per_scale, None].astype(np.float64) * unit
            left, right = x[:, part].astype(np.float64), quantized[:, part].astype(np.float64)
            total += left @ right.T * x_scale * group_scales[:, group]
            size += np.abs(left) @ np.abs(right).T * x_scale * np.abs(group_scales[:, group])
        bound = (groups + 7) * _EPS * size
        return {len(arguments) - 1: _with_addends(total, bound, arguments[rest:-1])}

    return arguments, expect


def unpack_panels(panels: Array, bits: int) -> Array:
    """Return the quantized values ``(panels * 16, K)`` of integer panels (see `models.panels`)."""
    count, groups, steps, width = panels.shape
    depth = width // _FEATURES
    unpacked = panels.reshape(count, groups, steps, _FEATURES, depth).astype(np.int32)
    halves = [unpacked & 15, unpacked >> 4] if bits == 4 else [unpacked]
    # panel, group, half, step, feature, j -> panel, feature, group, half, step, j
    joined = np.stack(halves, 2).transpose(0, 4, 1, 2, 3, 5)
    return np.ascontiguousarray(joined).reshape(count * _FEATURES, groups * _GROUP)


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
        words = np.stack(parts, 2).reshape(len(words), -1, _FEATURES)
    quantized = words[:, :width].astype(np.float64) - zero
    return quantized * np.repeat(scales.astype(np.float64), _GROUP, axis=1)[:, :width]


def _with_addends(total: Array, bound: Array, added: list[Array]) -> tuple[Array, Array]:
    for each in added:
        total = total + each
        bound = bound + _EPS * (np.abs(each) + np.abs(total))
    return total, bound + 1e-30
