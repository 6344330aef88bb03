"""Improves a rounded matrix by coordinate descent on the error in the layer's output.

GPTQ rounds each column once, and the later ones make up for it. Here columns are rounded again,
with all others as they are: a weight's best value is the minimum of a parabola, and of the values
that the format has the nearest one is the best. Before the columns of a group their scale is set
to its own minimum, for the integers that the group has; where the format has tables of levels,
several scales and offsets are tried (see `group_search`). No step makes the error larger.

With errors E = W - Q, ``(K, N)``, and moments H the error is ``sum(E * (H E))``, half of whose
negative gradient by Q is the residual R = H E: it is kept up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.compile.calibration.group_search import GroupMoments, improve_group
from mvlm.models.quantization import (
    GROUP_SIZE,
    WeightFormat,
    nearest_values,
    read_offsets,
    read_scales,
    store_scales,
)
from mvlm.models.rounding import Grid

Float32Array = npt.NDArray[np.float32]
# Columns that are rounded before the residual of all others is brought up to date.
_BLOCK = 4 * GROUP_SIZE


@dataclass(frozen=True)
class RoundedColumns:
    """Rows of a rounded matrix, transposed.

    Attributes:
        values: ``(K, N)``, weights in units of their steps: integers, or levels with offsets.
        scales: ``(groups, N)``, as the format stores them.
        weight_format: What was rounded to.
        grid: The rows' table, of a format with tables: weights are in units of the rows' scales.
    """

    values: Float32Array
    scales: npt.NDArray[Any]
    weight_format: WeightFormat
    grid: Grid | None = None

    def steps(self, groups: int | slice = slice(None)) -> Float32Array:
        """Return what values are multiples of: ``(groups, N)``, or ``(N,)`` of one group."""
        if self.grid is not None:
            return read_scales(self.scales[groups])
        steps: Float32Array = self.scales[groups].astype(np.float32)
        return steps * np.float32(self.weight_format.unit)

    def offsets(self, groups: int | slice = slice(None)) -> Float32Array:
        """Return the offsets in values, of the same shape; of a format with tables."""
        return read_offsets(self.scales[groups])

    def nearest(self, values: Float32Array, group: int) -> Float32Array:
        """Round weights of a group ``(N,)`` in units of their steps to the format's values."""
        if self.grid is None:
            return nearest_values(values, self.weight_format)
        offsets = self.offsets(group)
        levels = values - offsets
        self.grid.round(levels, levels)
        levels += offsets
        return levels

    def weights(self) -> Float32Array:
        """Return the weights ``(K, N)`` that the values stand for."""
        return self.values * np.repeat(self.steps(), GROUP_SIZE, axis=0)[: len(self.values)]


def inverse_steps(steps: Float32Array) -> Float32Array:
    """Return the inverse of steps; 0 of 0, which groups of zeros have."""
    return np.divide(1, steps, out=np.zeros_like(steps), where=steps != 0)


def descend(
    weights: Float32Array,
    rounded: RoundedColumns,
    moments: Float32Array,
    groups: Sequence[GroupMoments],
    sweeps: int,
) -> None:
    """Change values and scales of a rounded matrix, such that its output's error falls.

    Args:
        weights: The exact ones, ``(K, N)``.
        rounded: What they were rounded to, which is changed.
        moments: ``(K, K)``, positive definite.
        groups: The same within each group.
        sweeps: Over all columns.
    """
    residual = moments @ (weights - rounded.weights())
    for _ in range(sweeps):
        for start in range(0, len(weights), _BLOCK):
            columns = slice(start, min(start + _BLOCK, len(weights)))
            change = _descend_block(rounded, residual[columns].copy(), moments, groups, columns)
            residual -= moments[:, columns] @ change


def _descend_block(
    rounded: RoundedColumns,
    residual: Float32Array,
    moments: Float32Array,
    groups: Sequence[GroupMoments],
    columns: slice,
) -> Float32Array:
    """Change the scales and values of some groups.

    Args:
        rounded: The matrix.
        residual: The columns' residual, which is overwritten.
        moments: ``(K, K)``.
        groups: Those within each group.
        columns: From the first of a group on.

    Returns:
        By how much the columns' weights grew.
    """
    changes = np.empty_like(residual)
    for start in range(columns.start, columns.stop, GROUP_SIZE):
        group = slice(start, min(start + GROUP_SIZE, columns.stop))
        within = slice(start - columns.start, group.stop - columns.start)
        changes[within] = _descend_group(
            rounded, residual[within], groups[start // GROUP_SIZE], group
        )
        residual[within.stop :] -= moments[group.stop : columns.stop, group] @ changes[within]
    return changes


def _descend_group(
    rounded: RoundedColumns, residual: Float32Array, moments: GroupMoments, columns: slice
) -> Float32Array:
    """Change a group's scales and values, and return by how much its weights grew.

    Args:
        rounded: The matrix.
        residual: The group's, ``(32, N)``, which is overwritten.
        moments: Of the group's inputs.
        columns: The group's.
    """
    within, group = moments.moments, columns.start // GROUP_SIZE
    values = rounded.values[columns]
    old = values * rounded.steps(group)
    if rounded.grid is None:
        _store_best_scales(rounded, group, residual, within)
    else:
        improve_group(values, rounded.scales[group], residual, moments, rounded.grid)
    step = rounded.steps(group)
    residual -= within @ (values * step - old)
    inverse = inverse_steps(step)
    for k in range(len(values)):
        current = values[k] * step
        best = (current + residual[k] / within[k, k]) * inverse
        values[k] = rounded.nearest(best, group)
        residual[k + 1 :] -= within[k + 1 :, k, None] * (values[k] * step - current)
    return values * step - old


def _store_best_scales(
    rounded: RoundedColumns, group: int, residual: Float32Array, within: Float32Array
) -> None:
    """Store the scales of a group that are best for its values.

    Args:
        rounded: The matrix, of a format without tables.
        group: Which.
        residual: The group's, ``(32, N)``.
        within: The moments of the group's inputs, ``(32, 32)``.
    """
    values = rounded.values[group * GROUP_SIZE : (group + 1) * GROUP_SIZE]
    before = rounded.steps(group)
    curvature = np.einsum("kn,kn->n", values, within @ values)
    slope = np.einsum("kn,kn->n", values, residual)
    # Values that are all zero have no scale of their own.
    growth = np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > 0)
    stored = store_scales(before + growth, rounded.weight_format)
    step = stored.astype(np.float32) * np.float32(rounded.weight_format.unit)
    # What is stored is not exactly the minimum: it may be farther from it than what was there.
    better = np.abs(before + growth - step) < np.abs(growth)
    rounded.scales[group] = np.where(better, stored, rounded.scales[group])
