"""Improves a rounded matrix by coordinate descent on the error in the layer's output.

GPTQ rounds each column once, and the later ones make up for it. Here columns are rounded again,
with all others as they are: a weight's best value is the minimum of a parabola, and of the values
that the format has the nearest one is the best. Before the columns of a group their scale is set
to its own minimum, for the integers that the group has. No step makes the error larger.

With errors E = W - Q, ``(K, N)``, and moments H the error is ``sum(E * (H E))``, half of whose
negative gradient by Q is the residual R = H E: it is kept up to date.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import (
    GROUP_SIZE,
    WeightFormat,
    nearest_values,
    store_scales_of_rows,
)

Float32Array = npt.NDArray[np.float32]
# Columns that are rounded before the residual of all others is brought up to date.
_BLOCK = 4 * GROUP_SIZE


@dataclass(frozen=True)
class RoundedColumns:
    """Rows of a rounded matrix, transposed.

    Attributes:
        values: ``(K, N)``, weights in units of their steps: integers, or levels.
        scales: ``(groups, N)``, as the format stores them.
        row_scales: ``(N,)``, what the scales are multiples of.
        weight_format: What was rounded to.
    """

    values: Float32Array
    scales: npt.NDArray[Any]
    row_scales: Float32Array
    weight_format: WeightFormat

    def steps(self, groups: int | slice = slice(None)) -> Float32Array:
        """Return what values are multiples of: ``(groups, N)``, or ``(N,)`` of one group."""
        steps: Float32Array = self.scales[groups].astype(np.float32) * self.row_scales
        return steps

    def weights(self) -> Float32Array:
        """Return the weights ``(K, N)`` that the values stand for."""
        return self.values * np.repeat(self.steps(), GROUP_SIZE, axis=0)[: len(self.values)]


def descend(
    weights: Float32Array, rounded: RoundedColumns, moments: Float32Array, sweeps: int
) -> None:
    """Change values and scales of a rounded matrix, such that its output's error falls.

    Args:
        weights: The exact ones, ``(K, N)``.
        rounded: What they were rounded to, which is changed.
        moments: ``(K, K)``, positive definite.
        sweeps: Over all columns.
    """
    residual = moments @ (weights - rounded.weights())
    for _ in range(sweeps):
        for start in range(0, len(weights), _BLOCK):
            columns = slice(start, min(start + _BLOCK, len(weights)))
            change = _descend_block(rounded, residual[columns].copy(), moments, columns)
            residual -= moments[:, columns] @ change


def _descend_block(
    rounded: RoundedColumns, residual: Float32Array, moments: Float32Array, columns: slice
) -> Float32Array:
    """Change the scales and values of some groups.

    Args:
        rounded: The matrix.
        residual: The columns' residual, which is overwritten.
        moments: ``(K, K)``.
        columns: From the first of a group on.

    Returns:
        By how much the columns' weights grew.
    """
    changes = np.empty_like(residual)
    for start in range(columns.start, columns.stop, GROUP_SIZE):
        group = slice(start, min(start + GROUP_SIZE, columns.stop))
        within = slice(start - columns.start, group.stop - columns.start)
        changes[within] = _descend_group(rounded, residual[within], moments, group)
        residual[within.stop :] -= moments[group.stop : columns.stop, group] @ changes[within]
    return changes


def _descend_group(
    rounded: RoundedColumns, residual: Float32Array, moments: Float32Array, columns: slice
) -> Float32Array:
    """Change a group's scale and values, and return by how much its weights grew.

    Args:
        rounded: The matrix.
        residual: The group's, ``(32, N)``, which is overwritten.
        moments: ``(K, K)``.
        columns: The group's.
    """
    within = np.ascontiguousarray(moments[columns, columns])
    group = columns.start // GROUP_SIZE
    values, before = rounded.values[columns], rounded.steps(group)
    old = values * before
    step = _store_best_scales(rounded, group, values, residual, within)
    residual -= within @ (values * (step - before))
    inverse = 1 / step
    for k in range(len(values)):
        current = values[k] * step
        best = (current + residual[k] / within[k, k]) * inverse
        values[k] = nearest_values(best, rounded.weight_format)
        residual[k + 1 :] -= within[k + 1 :, k, None] * (values[k] * step - current)
    return values * step - old


def _store_best_scales(
    rounded: RoundedColumns,
    group: int,
    values: Float32Array,
    residual: Float32Array,
    within: Float32Array,
) -> Float32Array:
    """Store the scales of a group that are best for its values, and return its steps ``(N,)``.

    Args:
        rounded: The matrix.
        group: Which.
        values: The group's, ``(32, N)``.
        residual: The same.
        within: The moments of the group's inputs, ``(32, 32)``.
    """
    before = rounded.steps(group)
    curvature = np.einsum("kn,kn->n", values, within @ values)
    slope = np.einsum("kn,kn->n", values, residual)
    # Values that are all zero have no scale of their own.
    growth = np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > 0)
    stored = store_scales_of_rows(
        (before + growth)[:, None], rounded.row_scales, rounded.weight_format
    )[:, 0]
    step = stored.astype(np.float32) * rounded.row_scales
    # What is stored is not exactly the minimum: it may be farther from it than what was there.
    better = np.abs(before + growth - step) < np.abs(growth)
    rounded.scales[group] = np.where(better, stored, rounded.scales[group])
    return np.where(better, step, before)
