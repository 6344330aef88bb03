"""Rounding by the error in a layer's output, against the definition of GPTQ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.compile.calibration import gptq, matrix_rounding
from mvlm.compile.calibration.matrix_rounding import round_matrix
from mvlm.compile.calibration.moments import SecondMoments
from mvlm.models.quantization import (
    GROUP_SIZE,
    TABLE_ROWS,
    WEIGHT_FORMATS,
    QuantizedMatrix,
    WeightFormat,
    dequantize,
    nearest_values,
    quantize,
    read_offsets,
    read_scales,
)
from mvlm.runtime.errors import CheckpointError

Array = npt.NDArray[np.float64]
FORMATS = ("q4nl", "q3nl", "q8", "q4mlc")


def _inputs(width: int, count: int, seed: int) -> npt.NDArray[np.float32]:
    """Inputs of very different sizes, which depend on each other."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, width)) @ rng.standard_normal((width, width))
    return (mixed * np.exp(rng.standard_normal(width))).astype(np.float32)


def _moments(width: int, count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    moments = SecondMoments("layer", width)
    moments.add(_inputs(width, count, seed)[None])
    return moments.mean()


def _defined(
    matrix: npt.NDArray[np.float32],
    moments: npt.NDArray[np.float32],
    found: QuantizedMatrix,
    weight_format: WeightFormat,
) -> Array:
    """GPTQ as its paper's section 3 defines it: each step inverts the moments that are left.

    By the scales, offsets and tables that were found.
    """
    exact = moments.astype(np.float64)
    exact += np.eye(len(exact)) * gptq.DAMPING * np.diagonal(exact).mean()
    order = np.argsort(-np.diagonal(moments), kind="stable")
    weights, rounded = matrix.astype(np.float64), np.zeros(matrix.shape)
    for place, k in enumerate(order):
        left = order[place:]
        inverse = np.linalg.inv(exact[np.ix_(left, left)])
        rounded[:, k] = _nearest(weights[:, k], found, k // GROUP_SIZE, weight_format)
        error = (weights[:, k] - rounded[:, k]) / inverse[0, 0]
        weights[:, left] -= error[:, None] * inverse[0]
    return rounded


def _nearest(
    weights: Array, found: QuantizedMatrix, group: int, weight_format: WeightFormat
) -> Array:
    """Round a column to the nearest of what its group's integers may stand for."""
    scales = found.scales[:, group]
    if found.row_scales is None or found.levels is None:
        steps = scales.astype(np.float64) * weight_format.unit
        return nearest_values((weights / steps).astype(np.float32), weight_format) * steps
    steps = (read_scales(scales) * found.row_scales).astype(np.float64)
    levels = np.repeat(found.levels, TABLE_ROWS, axis=0)[: len(weights)]
    values = (levels + read_offsets(scales)[:, None]) * steps[:, None]
    best = np.abs(weights[:, None] - values).argmin(axis=1)
    chosen: Array = values[np.arange(len(weights)), best]
    return chosen


@pytest.mark.parametrize("name", FORMATS)
def test_columns_are_rounded_as_the_paper_defines_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of columns and of rows of which the last is not whole."""
    monkeypatch.setattr(gptq, "_BLOCK", 28)
    monkeypatch.setattr(matrix_rounding, "ROWS", 16)
    monkeypatch.setattr(gptq, "SWEEPS", 0)
    weight_format = WEIGHT_FORMATS[name]
    matrix = np.random.default_rng(1).standard_normal((39, 80)).astype(np.float32)
    moments = _moments(80, 350)
    found = round_matrix(matrix, moments, weight_format).matrix
    defined = _defined(matrix, moments, found, weight_format)
    # Where a weight lies half-way between two values, float32 may round it to the other one, and
    # all later ones are then corrected otherwise: equally well.
    equal = np.isclose(dequantize(found, weight_format), defined, rtol=1e-5).mean()
    assert equal > 0.9
    changes = [matrix - each for each in (dequantize(found, weight_format), defined)]
    errors = [(change @ moments * change).sum() for change in changes]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "width"), [(1, 32), (5, 45), (33, 200), (64, 129)])
def test_outputs_change_less_than_by_plain_rounding(name: str, rows: int, width: int) -> None:
    weight_format = WEIGHT_FORMATS[name]
    matrix = np.random.default_rng(2).standard_normal((rows, width)).astype(np.float32)
    moments = _moments(width, 4 * width)
    rounded = round_matrix(matrix, moments, weight_format)
    assert rounded.error <= rounded.plain_error
    if width > GROUP_SIZE:
        assert rounded.error < 0.7 * rounded.plain_error and not rounded.fell_back
    inputs = _inputs(width, 4 * width, 0)
    change = inputs @ (matrix - dequantize(rounded.matrix, weight_format)).T
    whole = inputs @ matrix.T
    assert rounded.error == pytest.approx((change**2).sum() / (whole**2).sum(), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1.0, 1e6])
def test_inputs_of_any_size_give_the_same(scale: float) -> None:
    matrix = np.random.default_rng(3).standard_normal((16, 96)).astype(np.float32)
    usual, other = (
        round_matrix(matrix, _moments(96, 400) * np.float32(by), WEIGHT_FORMATS["q4nl"]).error
        for by in (1, scale)
    )
    assert other == pytest.approx(usual, rel=0.05)


@pytest.mark.parametrize("name", ["q4nl", "q3nl"])
def test_groups_of_zeros_and_rows_of_any_size(name: str) -> None:
    matrix = np.random.default_rng(3).standard_normal((20, 96)).astype(np.float32)
    matrix[0, 32:64] = 0
    matrix[1] *= 1e-20
    matrix[2] *= 1e15
    matrix[3] = 0
    weight_format, moments = WEIGHT_FORMATS[name], _moments(96, 400)
    inverted = gptq.invert(moments)
    assert inverted is not None
    rounded = dequantize(gptq.round_rows(matrix, moments, inverted, weight_format), weight_format)
    plain = dequantize(quantize(matrix, weight_format, "search"), weight_format)
    assert not rounded[0, 32:64].any() and not rounded[3].any()
    changes = [(matrix - each).astype(np.float64) for each in (plain, rounded)]
    errors = [np.einsum("nk,nk->n", change @ moments, change) for change in changes]
    assert (errors[1][:3] < errors[0][:3]).all()
    # Rows of one table depend on none but the others of their 16.
    part = gptq.round_rows(matrix[16:], moments, inverted, weight_format)
    np.testing.assert_array_equal(dequantize(part, weight_format), rounded[16:])


def test_tables_fit_weights_that_lie_on_even_steps_and_others() -> None:
    random = np.random.default_rng(7)
    indices = random.binomial(15, 0.5, (16, 4, 32))
    indices[..., 0], indices[..., 1] = 0, 15
    even = (indices - random.uniform(6.5, 8.5, (16, 4, 1))) * random.uniform(0.5, 1, (16, 4, 1))
    smooth = random.standard_normal((16, 128)) ** 3
    matrix = np.concatenate([even.reshape(16, -1), smooth, even.reshape(16, -1)])
    rounded = round_matrix(matrix.astype(np.float32), _moments(128, 500), WEIGHT_FORMATS["q4nl"])
    assert not rounded.fell_back and rounded.matrix.levels is not None
    tables = WEIGHT_FORMATS["q4nl"].tables
    assert rounded.matrix.levels.tolist() == [list(tables[table]) for table in (1, 0, 1)]


def test_singular_moments_are_damped() -> None:
    matrix = np.random.default_rng(4).standard_normal((16, 96)).astype(np.float32)
    one_input = _moments(96, 1)  # of rank one
    rounded = round_matrix(matrix, one_input, WEIGHT_FORMATS["q4nl"])
    assert rounded.error < 1e-3 * rounded.plain_error


def test_weights_of_inputs_that_were_always_zero_keep_their_values() -> None:
    matrix = np.random.default_rng(5).standard_normal((16, 96)).astype(np.float32)
    inputs = _inputs(96, 400, 0)
    inputs[:, ::3] = 0
    moments = SecondMoments("layer", 96)
    moments.add(inputs)
    rounded = round_matrix(matrix, moments.mean(), WEIGHT_FORMATS["q8"])
    # Other data may have these inputs.
    change = (dequantize(rounded.matrix, WEIGHT_FORMATS["q8"]) - matrix)[:, ::3]
    assert np.square(change).mean() < 0.1**2 * np.square(matrix).mean()


@pytest.mark.parametrize("name", FORMATS)
def test_without_any_input_rounding_is_plain(name: str) -> None:
    matrix = np.random.default_rng(6).standard_normal((16, 96)).astype(np.float32)
    rounded = round_matrix(matrix, np.zeros((96, 96), np.float32), WEIGHT_FORMATS[name])
    assert rounded.fell_back and rounded.error == 0


def test_zeros_stay_zeros() -> None:
    rounded = round_matrix(np.zeros((4, 64), np.float32), _moments(64, 99), WEIGHT_FORMATS["q3nl"])
    assert not dequantize(rounded.matrix, WEIGHT_FORMATS["q3nl"]).any()
    assert rounded.error == 0


@pytest.mark.parametrize(
    ("value", "found"),
    [(np.nan, "1 of 8 positions with NaN"), (np.inf, "infinity"), (1e30, "values up to 1e+30")],
)
def test_inputs_that_are_not_finite_name_their_layer(value: float, found: str) -> None:
    inputs = np.ones((8, 64), np.float32)
    inputs[3, 5] = value
    with pytest.raises(CheckpointError) as error:
        SecondMoments("decoder.layers.7.down", 64).add(inputs)
    assert "decoder.layers.7.down" in str(error.value) and found in str(error.value)
