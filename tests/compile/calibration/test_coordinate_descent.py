"""Coordinate descent, against what its minimum has to be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.compile.calibration.coordinate_descent import (
    RoundedColumns,
    descend,
    inverse_steps,
)
from mvlm.compile.calibration.group_search import group_moments, improve_group
from mvlm.compile.calibration.moments import damped
from mvlm.models.quantization import (
    GROUP_SIZE,
    MAX_SCALE,
    WEIGHT_FORMATS,
    WeightFormat,
    find_table_scales,
    nearest_values,
    pack_scales,
    quantize,
    read_offsets,
    read_scales,
)
from mvlm.models.rounding import Grid

Array = npt.NDArray[np.float32]
FORMATS = ("q4nl", "q3nl", "q8", "q4mlc")


def _moments(width: int) -> Array:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3 * width, width)) @ rng.standard_normal((width, width))
    moments = inputs.T @ inputs / len(inputs)
    return damped(moments.astype(np.float32), 0.1).astype(np.float32)


def _descend(weights: Array, rounded: RoundedColumns, moments: Array, sweeps: int) -> None:
    descend(weights, rounded, moments, group_moments(moments.astype(np.float64)), sweeps)


def _rounded(matrix: Array, weight_format: WeightFormat) -> tuple[Array, RoundedColumns]:
    """Round a matrix ``(N, K)`` without regard to its inputs.

    With tables all rows have the first. Returns the weights in the units of what is rounded, too.
    """
    values = np.empty(matrix.T.shape, np.float32)
    if not weight_format.has_tables:
        scales = quantize(matrix, weight_format, "search").scales.T.copy()
        columns = RoundedColumns(values, scales, weight_format)
        steps = np.repeat(columns.steps(), GROUP_SIZE, axis=0)[: len(values)]
        values[:] = nearest_values(matrix.T / steps, weight_format)
        return matrix.T, columns
    found = find_table_scales(matrix, weight_format, "search")
    weights = (matrix / found.row_scales[:, None]).T.copy()
    scales = found.stored.T.copy()
    columns = RoundedColumns(values, scales, weight_format, weight_format.grids[0])
    for k in range(len(values)):
        inverse = inverse_steps(columns.steps(k // GROUP_SIZE))
        values[k] = columns.nearest(weights[k] * inverse, k // GROUP_SIZE)
    return weights, columns


def _errors(weights: Array, rounded: Array, moments: Array) -> npt.NDArray[np.float64]:
    """Return the squared error of each output ``(N,)``."""
    change = (weights - rounded).astype(np.float64)
    found: npt.NDArray[np.float64] = (change * (moments @ change)).sum(0)
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "width"), [(1, 20), (7, 45), (20, 200), (3, 128), (300, 40)])
def test_no_sweep_makes_an_output_worse(name: str, rows: int, width: int) -> None:
    matrix = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)
    moments, (weights, rounded) = _moments(width), _rounded(matrix, WEIGHT_FORMATS[name])
    errors = [_errors(weights, rounded.weights(), moments)]
    for _ in range(4):
        _descend(weights, rounded, moments, sweeps=1)
        errors.append(_errors(weights, rounded.weights(), moments))
    for before, after in pairwise(errors):
        assert (after <= before * 1.0001).all()
    assert errors[-1].sum() < 0.95 * errors[0].sum()


@pytest.mark.parametrize("name", ["q4nl", "q3nl"])
def test_at_the_end_no_weight_can_be_better(name: str) -> None:
    weight_format = WEIGHT_FORMATS[name]
    matrix = np.random.default_rng(2).standard_normal((3, 70)).astype(np.float32)
    moments, (weights, rounded) = _moments(70), _rounded(matrix, weight_format)
    _descend(weights, rounded, moments, sweeps=60)
    best, steps = _errors(weights, rounded.weights(), moments), rounded.steps()
    offsets = rounded.offsets()
    for k in range(70):
        for level in weight_format.tables[0]:
            other = rounded.weights()
            other[k] = (level + offsets[k // GROUP_SIZE]) * steps[k // GROUP_SIZE]
            assert (_errors(weights, other, moments) >= best * 0.9999).all()


@pytest.mark.parametrize("name", ["q4nl", "q3nl"])
@pytest.mark.parametrize("width", [32, 5])
def test_a_group_becomes_as_good_as_the_best_of_what_is_tried(name: str, width: int) -> None:
    """And zeros stay: the trial, one row and one scale after the other."""
    rng, grid = np.random.default_rng(4), WEIGHT_FORMATS[name].grids[0]
    moments = _moments(width).astype(np.float64)
    (group,) = group_moments(moments)
    weights = (rng.standard_normal((width, 9)) * 100).astype(np.float32)
    stored = pack_scales(rng.integers(6, 12, 9), rng.integers(0, 8, 9))
    stored[4] = 0
    steps, offsets = read_scales(stored), read_offsets(stored)
    levels = weights * inverse_steps(steps) - offsets
    grid.round(levels, levels)
    values = levels + offsets
    residual = moments @ (weights - values * steps)
    before = _errors(weights, values * steps, group.moments)
    improve_group(values, stored, residual.astype(np.float32), group, grid)
    after = _errors(weights, values * read_scales(stored), group.moments)
    assert (after <= before * 1.0001).all() and after.sum() < 0.9 * before.sum()
    assert stored[4] == 0
    for n in (0, 1, 2, 3, 5, 6, 7, 8):
        scale, offset = float(read_scales(stored)[n]), read_offsets(stored)[n]
        assert set((values[:, n] - offset).tolist()) <= set(map(float, grid.levels))
        tried = [
            _cost(weights[:, n], moments, each, float(offset), grid)
            for each in (scale - 1, scale, scale + 1)
            if 1 <= each <= MAX_SCALE
        ]
        assert after[n] <= max(tried) * 1.01


def _cost(
    weights: Array, moments: npt.NDArray[np.float64], scale: float, offset: float, grid: Grid
) -> float:
    """Return the error of a group's row that GPTQ rounds by one scale and offset."""
    left, change = weights.astype(np.float64), np.empty(len(weights))
    for k in range(len(weights)):
        inverse = np.linalg.inv(moments[k:, k:])
        values = (np.array(grid.levels) + offset) * scale
        value = values[np.abs(values - left[k]).argmin()]
        change[k] = weights[k] - value
        left[k:] -= (left[k] - value) / inverse[0, 0] * inverse[0]
    return float(change @ moments @ change)
