"""Rounds a group of columns to levels again: with other scales and offsets, all columns at once.

The weights of other groups stay as they are. Then the error in the layer's output is least where a
group's weights are the target ``t``, and weights q add ``(t - q) H (t - q)`` to it, H being the
moments of the group's inputs. With the upper U, for which ``U^T U`` is H's inverse, that is the sum
of squares of what GPTQ's error is for each column: rounding t by GPTQ finds good levels and what
they cost. It is done for several scales and offsets, and the best of these is taken where it is
better than what the group has.

Weights are in units of their rows' scales here, so that scales are integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import (
    GROUP_SIZE,
    MAX_SCALE,
    OFFSETS,
    nearest_offsets,
    offset_values,
    pack_scales,
    read_offsets,
    read_scales,
)
from mvlm.models.rounding import Grid

Float32Array = npt.NDArray[np.float32]

# Rows that are rounded at a time: what is computed for all candidates fits into a core's cache.
ROWS = 256
# What is tried besides the scale and offset that a group has: the offset that is best for its
# levels and those beside it, each with the scale that is best then and with those beside it.
_OFFSETS = (-1, 0, 1)
_SCALES = (-1, 0, 1)
CANDIDATES = len(_OFFSETS) * len(_SCALES) + 1
# Columns that are rounded before all later ones are corrected at once.
_BLOCK = 8
# A new cost has to be less than the old one by more than float32's rounding.
_LESS = np.float32(1 - 1e-5)


@dataclass(frozen=True)
class GroupMoments:
    """The moments of a group's inputs.

    Attributes:
        moments: H, ``(k, k)``; k is 32, or less in a last group.
        inverse: Its inverse.
        factor: The upper U with ``U^T U`` that inverse.
    """

    moments: Float32Array
    inverse: Float32Array
    factor: Float32Array


def group_moments(moments: npt.NDArray[np.float64]) -> tuple[GroupMoments, ...]:
    """Return those of each group, of positive definite moments ``(K, K)``."""
    found = []
    for start in range(0, len(moments), GROUP_SIZE):
        columns = slice(start, start + GROUP_SIZE)
        within = moments[columns, columns]
        inverse = np.linalg.inv(within)
        factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
        found.append(GroupMoments(*(_float32(each) for each in (within, inverse, factor))))
    return tuple(found)


def _float32(values: npt.NDArray[Any]) -> Float32Array:
    return np.ascontiguousarray(values, np.float32)


def improve_group(
    values: Float32Array,
    stored: npt.NDArray[np.int8],
    residual: Float32Array,
    group: GroupMoments,
    grid: Grid,
) -> None:
    """Round a group again where that is better.

    Args:
        values: Levels with offsets, ``(k, N)``, which are changed.
        stored: Scales and offsets ``(N,)``, which are changed; what has scale 0 stays as it is.
        residual: ``(k, N)``: the moments of all inputs times the errors of all weights.
        group: The moments of the group's inputs.
        grid: The levels.
    """
    for start in range(0, values.shape[1], ROWS):
        rows = slice(start, start + ROWS)
        part, scales = values[:, rows], read_scales(stored[rows])
        growth = group.inverse @ residual[:, rows]
        old = part * scales
        tried_scales, tried_offsets = _candidates(part, stored[rows], old, growth, group)
        rounded, costs = _round(
            old + growth, tried_scales, offset_values(tried_offsets), group.factor, grid
        )
        best = costs.argmin(axis=0)[None]
        before = np.einsum("kn,kn->n", growth, residual[:, rows])
        better = (np.take_along_axis(costs, best, axis=0)[0] < before * _LESS) & (scales > 0)
        found = np.take_along_axis(rounded, best[None], axis=1)[:, 0]
        part[:] = np.where(better, found, part)
        packed = pack_scales(tried_scales, tried_offsets)
        packed = np.take_along_axis(packed, best, axis=0)[0]
        stored[rows] = np.where(better, packed, stored[rows])


def _candidates(
    values: Float32Array,
    stored: npt.NDArray[np.int8],
    old: Float32Array,
    growth: Float32Array,
    group: GroupMoments,
) -> tuple[Float32Array, npt.NDArray[Any]]:
    """Return scales and indices of offsets to try, ``(candidates, N)`` each.

    The levels stay: of all ``a * level + b`` those with the least cost are found by two equations.
    """
    offsets, ones = read_offsets(stored), np.ones(len(values), np.float32)
    levels = values - offsets
    pull = group.moments @ (old + growth)
    weighted = group.moments @ levels
    square, mixed = np.einsum("kn,kn->n", levels, weighted), weighted.sum(axis=0)
    whole = np.float32(ones @ group.moments @ ones)
    product, total = np.einsum("kn,kn->n", levels, pull), pull.sum(axis=0)
    spread = square * whole - mixed * mixed
    line = np.divide(
        product * whole - mixed * total, spread, out=np.zeros_like(spread), where=spread > 0
    )
    shift = np.divide(total - line * mixed, whole * line, out=offsets.copy(), where=line > 0)
    best = nearest_offsets(shift)
    scales, indices = [read_scales(stored)], [nearest_offsets(offsets)]
    for change in _OFFSETS:
        index = np.clip(best + change, 0, OFFSETS - 1)
        offset = offset_values(index)
        curvature = square + offset * (2 * mixed + offset * whole)
        exact = np.divide(
            product + offset * total, curvature, out=scales[0].copy(), where=curvature > 0
        )
        for other in _SCALES:
            scales.append(np.clip(np.rint(exact) + np.float32(other), 1, MAX_SCALE))
            indices.append(index)
    return np.stack(scales), np.stack(indices)


def _round(
    target: Float32Array,
    scales: Float32Array,
    offsets: Float32Array,
    factor: Float32Array,
    grid: Grid,
) -> tuple[Float32Array, Float32Array]:
    """Round a target by GPTQ with each candidate.

    Args:
        target: ``(k, N)``.
        scales: ``(candidates, N)``.
        offsets: The same.
        factor: U.
        grid: The levels.

    Returns:
        Levels with offsets ``(k, candidates, N)``, and their costs ``(candidates, N)``.
    """
    width, shape = len(target), scales.shape
    left = np.repeat(target[:, None], len(scales), axis=1)
    flat = left.reshape(width, -1)
    values, errors = np.empty_like(left), np.empty_like(flat)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    scaled = np.empty(shape, np.float32)
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        for k in range(start, end):
            if k > start:
                flat[k] -= factor[start:k, k] @ errors[start:k]
            value = values[k]
            np.multiply(left[k], inverse, out=value)
            value -= offsets
            grid.round(value, value)
            value += offsets
            np.multiply(value, scales, out=scaled)
            np.subtract(left[k], scaled, out=scaled)
            np.multiply(scaled.reshape(-1), 1 / factor[k, k], out=errors[k])
        flat[end:] -= factor[start:end, end:].T @ errors[start:end]
    return values, np.einsum("kn,kn->n", errors, errors).reshape(shape)
