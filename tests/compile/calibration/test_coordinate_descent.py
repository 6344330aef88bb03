"""Coordinate descent, against what its minimum has to be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.compile.calibration.coordinate_descent import RoundedColumns, descend
from mvlm.compile.calibration.moments import damped
from mvlm.models.quantization import (
    GROUP_SIZE,
    WEIGHT_FORMATS,
    WeightFormat,
    nearest_values,
    quantize,
)

Array = npt.NDArray[np.float32]
FORMATS = ("q4nl", "q3nl", "q8", "q4mlc")


def _moments(width: int) -> Array:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3 * width, width)) @ rng.standard_normal((width, width))
    moments = inputs.T @ inputs / len(inputs)
    return damped(moments.astype(np.float32), 0.1).astype(np.float32)


def _rounded(matrix: Array, weight_format: WeightFormat) -> RoundedColumns:
    """Round a matrix ``(N, K)`` without regard to its inputs."""
    found = quantize(matrix, weight_format, "search")
    rows = found.row_scales
    if rows is None:
        rows = np.full(len(matrix), weight_format.unit, np.float32)
    empty = np.empty(matrix.T.shape, np.float32)
    columns = RoundedColumns(empty, found.scales.T.copy(), rows, weight_format)
    steps = np.repeat(columns.steps(), GROUP_SIZE, axis=0)[: len(empty)]
    empty[:] = nearest_values(matrix.T / steps, weight_format)
    return columns


def _errors(weights: Array, rounded: Array, moments: Array) -> npt.NDArray[np.float64]:
    """Return the squared error of each output ``(N,)``."""
    change = (weights - rounded).astype(np.float64)
    found: npt.NDArray[np.float64] = (change * (moments @ change)).sum(0)
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "width"), [(1, 20), (7, 45), (20, 200), (3, 128)])
def test_no_sweep_makes_an_output_worse(name: str, rows: int, width: int) -> None:
    matrix = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)
    moments, rounded = _moments(width), _rounded(matrix, WEIGHT_FORMATS[name])
    errors = [_errors(matrix.T, rounded.weights(), moments)]
    for _ in range(4):
        descend(matrix.T, rounded, moments, sweeps=1)
        errors.append(_errors(matrix.T, rounded.weights(), moments))
    for before, after in pairwise(errors):
        assert (after <= before * 1.0001).all()
    assert errors[-1].sum() < 0.95 * errors[0].sum()


@pytest.mark.parametrize("name", ["q4nl", "q3nl"])
def test_at_the_end_no_weight_and_no_scale_can_be_better(name: str) -> None:
    weight_format = WEIGHT_FORMATS[name]
    matrix = np.random.default_rng(2).standard_normal((3, 70)).astype(np.float32)
    moments, rounded = _moments(70), _rounded(matrix, weight_format)
    descend(matrix.T, rounded, moments, sweeps=60)
    best, steps = _errors(matrix.T, rounded.weights(), moments), rounded.steps()
    for k in range(70):
        for level in weight_format.levels:
            other = rounded.weights()
            other[k] = level * steps[k // GROUP_SIZE]
            assert (_errors(matrix.T, other, moments) >= best * 0.9999).all()
    for group in range(len(steps)):
        for change in (-1, 1):
            scales = rounded.scales.copy()
            scales[group] = np.clip(scales[group].astype(int) + change, -127, 127)
            other = RoundedColumns(rounded.values, scales, rounded.row_scales, weight_format)
            assert (_errors(matrix.T, other.weights(), moments) >= best * 0.9999).all()


def test_groups_of_zeros_and_rows_of_any_size() -> None:
    matrix = np.random.default_rng(3).standard_normal((4, 96)).astype(np.float32)
    matrix[0, 32:64] = 0
    matrix[1] *= 1e-20
    matrix[2] *= 1e20
    matrix[3] = 0
    moments, rounded = _moments(96), _rounded(matrix, WEIGHT_FORMATS["q4nl"])
    before = _errors(matrix.T, rounded.weights(), moments)
    descend(matrix.T, rounded, moments, sweeps=2)
    after = _errors(matrix.T, rounded.weights(), moments)
    assert np.isfinite(rounded.weights()).all()
    assert (after[:3] < before[:3]).all() and after[3] == 0
