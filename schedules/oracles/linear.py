"""Linear layers over weights in any layout, for all weight formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.ops.signatures import LinearLayer, LinearSignature, QuantizedLinearSignature
from mvlm.models.quantization import (
    GROUP_SIZE,
    MAX_LEVEL,
    QMAX,
    TABLE_LEVELS,
    TABLE_ROWS,
    read_offsets,
    read_scales,
)
from mvlm.models.weight_layout import Matrix, WeightLayout
from mvlm.schedules.oracles.numbers import random_arguments
from mvlm.schedules.oracles.rowwise import zero_point_arguments

Array = npt.NDArray[Any]
_EPS = float(np.finfo(np.float32).eps)
# Weights that are read at once: the indices of each take many times its memory.
_BLOCK_VALUES = 1 << 22


def linear_case(
    op: LinearSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``linear``: float32 activations, float or integer weights."""
    arguments = random_arguments(op, extents, random)
    if op.weight_format.is_integer:
        _choose_scales(op, arguments, random)

    def expect() -> Any:
        matrix = stored_weights(op.weight_layout, op.matrix, arguments)
        if op.weight_format.is_integer:
            matrix *= np.repeat(_scales(op, arguments), GROUP_SIZE, axis=1)[:, : op.width]
        x = arguments["x"].astype(np.float64)
        bound = (op.width + 4) * _EPS * (np.abs(x) @ np.abs(matrix.T))
        return {"y": _with_addends(x @ matrix.T, bound, arguments)}

    return arguments, expect


def quantized_linear_case(
    op: QuantizedLinearSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``quantized_linear``: integers on both sides, exact within a group."""
    arguments = random_arguments(op, extents, random)
    qmax = QMAX[op.activations]
    x = random.integers(-qmax, qmax, arguments["x"].shape, arguments["x"].dtype, endpoint=True)
    x_scales = random.uniform(0.01, 0.1, arguments["x_scales"].shape).astype(np.float32)
    arguments |= {"x": x, "x_scales": x_scales}
    arguments |= zero_point_arguments(x, op.zero_point)
    if arguments["weight"].dtype == np.int16:  # of 14 bits
        shape = arguments["weight"].shape
        arguments["weight"] = random.integers(-qmax, qmax, shape, np.int16, endpoint=True)
    _choose_scales(op, arguments, random)

    def expect() -> Any:
        quantized = stored_weights(op.weight_layout, op.matrix, arguments)
        scales = _scales(op, arguments)
        total = np.zeros((len(x), op.features))
        size = np.zeros_like(total)
        for group in range(op.groups):
            part = slice(GROUP_SIZE * group, GROUP_SIZE * (group + 1))
            x_scale = x_scales[:, group // op.groups_per_scale, None].astype(np.float64)
            factors = x_scale * scales[:, group]
            left, right = x[:, part].astype(np.float64), quantized[:, part]
            total += left @ right.T * factors
            size += np.abs(left) @ np.abs(right).T * np.abs(factors)
        bound = (op.groups + 7) * _EPS * size
        return {"y": _with_addends(total, bound, arguments)}

    return arguments, expect


def stored_weights(layout: WeightLayout, matrix: Matrix, arrays: Mapping[str, Array]) -> Array:
    """Return a matrix ``(features, width)`` in float64, without its scales, from its arrays.

    Args:
        layout: Of the matrix.
        matrix: What it is.
        arrays: As the layout stores it.
    """
    weight, weight_format = arrays["weight"], matrix.weight_format
    found = np.empty((matrix.features, matrix.width))
    zero = layout.zero_point(weight_format, matrix.activations)
    step = max(1, _BLOCK_VALUES // matrix.width)
    for first in range(0, matrix.features, step):
        features = np.arange(first, min(first + step, matrix.features))[:, None]
        pieces = layout.pieces(matrix, features, np.arange(matrix.width))
        stored: Array = np.zeros((), np.int64)
        for piece in pieces:
            elements = weight[piece.index]
            if piece.shift is None:
                stored = elements
            else:
                bits = elements.astype(np.int64) >> piece.shift & (1 << piece.bits) - 1
                stored = stored | bits << piece.position
        if weight_format.has_tables:
            levels = arrays["levels"][features // TABLE_ROWS, stored]
            groups = np.arange(matrix.width) // GROUP_SIZE
            of_groups = arrays["scales"][layout.scale(matrix, features, groups)]
            found[first : first + step] = levels + read_offsets(of_groups).astype(np.float64)
        else:
            found[first : first + step] = stored.astype(np.float64) - zero
    return found


def _choose_scales(
    op: LinearLayer, arguments: dict[str, Array], random: np.random.Generator
) -> None:
    """Make scales in float16 positive and of one order, and levels such; bytes may be any."""
    if "levels" in arguments:
        shape, levels = arguments["levels"].shape, 1 << op.weight_format.bits
        table = random.integers(-MAX_LEVEL, MAX_LEVEL, (shape[0], levels), np.int8, endpoint=True)
        arguments["levels"] = np.tile(table, TABLE_LEVELS // levels)
    scales = arguments["scales"]
    if scales.dtype == np.float16:
        arguments["scales"] = random.uniform(0.01, 0.1, scales.shape).astype(np.float16)


def _scales(op: LinearLayer, arguments: Mapping[str, Array]) -> Array:
    """Return what the integers of each group are multiplied with, ``(features, groups)``."""
    layout, matrix = op.weight_layout, op.matrix
    features = np.arange(op.features)
    stored = arguments["scales"][layout.scale(matrix, features[:, None], np.arange(op.groups))]
    if not op.weight_format.has_tables:
        return stored.astype(np.float64) * op.weight_format.unit
    rows = arguments["row_scales"][layout.row_scale(matrix, features)]
    return read_scales(stored) * rows.astype(np.float64)[:, None]


def _with_addends(
    total: Array, bound: Array, arguments: Mapping[str, Array]
) -> tuple[Array, Array]:
    for each in (arguments[name] for name in ("bias", "residual") if name in arguments):
        total = total + each
        bound = bound + _EPS * (np.abs(each) + np.abs(total))
    return total, bound + 1e-30
