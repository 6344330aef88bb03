"""Quantization against a second implementation, and against what it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from mvlm.models import quantization, weight_layout
from mvlm.models.quantization import (
    DEFAULT_SCHEME,
    GROUP_SIZE,
    MAX_LEVEL,
    Q3NL,
    Q4MLC,
    Q4NL,
    SCHEMES,
    WeightFormat,
    dequantize,
    find_scheme,
    fit_groups_per_scale,
    plan_quantization,
    quantize,
)
from mvlm.models.rounding import ROUNDINGS, Rounding
from mvlm.runtime.errors import UsageError
from mvlm.schedules.oracles.arithmetic import from_q4
from tests.models.rounding import mlc_quantize
from tests.models.stored_rows import read_rows, stored_rows

F16 = np.finfo(np.float16)

matrices = nps.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 70)),
    elements=st.floats(-1e5, 1e5, width=32),
)


def steps(scales: npt.NDArray[np.float16], width: int) -> npt.NDArray[np.float64]:
    """The scale of every weight."""
    return np.repeat(scales.astype(np.float64), GROUP_SIZE, axis=1)[:, :width]


def largest(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The largest size in every weight's group."""
    width = matrix.shape[1]
    padded = np.pad(np.abs(matrix.astype(np.float64)), ((0, 0), (0, -width % GROUP_SIZE)))
    tops = padded.reshape(len(matrix), -1, GROUP_SIZE).max(-1)
    return np.repeat(tops, GROUP_SIZE, axis=1)[:, :width]


@settings(deadline=None, derandomize=True)
@given(matrices)
def test_error_is_at_most_half_a_step(matrix: npt.NDArray[np.float32]) -> None:
    """And where float16 rounds the scale down, at most what the clip takes from the largest."""
    words, scales = stored_rows(matrix, Q4MLC)
    width = matrix.shape[1]
    error = np.abs(read_rows(words, scales, Q4MLC, width) - matrix.astype(np.float64))
    step = steps(scales, width)
    clipped = np.maximum(largest(matrix) - 7 * step, 0)
    slack = 1e-6 * np.abs(matrix)  # the division by the scale is rounded to float32
    assert (error <= np.maximum(step / 2, clipped) + slack).all()


@settings(deadline=None, derandomize=True)
@given(matrices)
def test_numbers_are_those_of_mlc(matrix: npt.NDArray[np.float32]) -> None:
    words, scales = stored_rows(matrix, Q4MLC)
    width = matrix.shape[1]
    for row, (row_words, row_scales) in enumerate(zip(words, scales, strict=True)):
        nibbles, expected = mlc_quantize(matrix[row])
        assert row_scales.tolist() == [float(scale) for scale in expected]
        found = [int(row_words[k // 8]) >> 4 * (k % 8) & 15 for k in range(width)]
        assert found == nibbles


def test_a_worked_example() -> None:
    """Steps of one: the weights are their own levels, 7 above zero, the lowest nibble first."""
    row = np.array([[-7, -6, -3, 0, 1, 2, 5, 7, 0.5, 1.5, 2.49]], np.float32)
    words, scales = stored_rows(row, Q4MLC)
    assert words.dtype == np.uint32
    assert scales.dtype == np.float16
    assert scales.tolist() == [[1.0]]
    # 7.5 and 8.5 round to the even 8, and so would any tie.
    assert [f"{word:08x}" for word in words[0]] == ["ec987410", "77777988"]
    assert read_rows(words, scales, Q4MLC, 11).tolist() == [[-7, -6, -3, 0, 1, 2, 5, 7, 1, 1, 2]]


@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 588])
def test_widths(width: int) -> None:
    matrix = np.random.default_rng(width).standard_normal((3, width), np.float32)
    words, scales = stored_rows(matrix, Q4MLC)
    assert words.shape == (3, -(-width // 8))
    assert scales.shape == (3, -(-width // 32))
    found = read_rows(words, scales, Q4MLC, width)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, from_q4(words, scales, width))
    # What is beyond the width stands for zero.
    whole = read_rows(words, scales, Q4MLC, words.shape[1] * 8)
    assert not whole[:, width:].any()


def test_blocks_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).standard_normal((7, 40), np.float32)
    whole = stored_rows(matrix, Q4MLC)
    monkeypatch.setattr(weight_layout, "_BLOCK_VALUES", 100)
    for found, expected in zip(stored_rows(matrix, Q4MLC), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_groups_of_zeros_stay_zero() -> None:
    matrix = np.zeros((2, 96), np.float32)
    matrix[0, 40] = 3
    words, scales = stored_rows(matrix, Q4MLC)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    found = read_rows(words, scales, Q4MLC, 96)
    assert np.flatnonzero(found).tolist() == [40]
    np.testing.assert_allclose(found[0, 40], 3, rtol=2**-11)


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-9, 2e-7])
def test_groups_too_small_for_float16_become_zero(size: float) -> None:
    """Their scale rounds to zero; they are below any other weight's rounding."""
    matrix = np.full((1, 32), size, np.float32)
    words, scales = stored_rows(matrix, Q4MLC)
    found = read_rows(words, scales, Q4MLC, 32)
    assert np.isfinite(found).all()
    assert np.abs(found - matrix).max() <= size


@pytest.mark.parametrize("size", [5e-7, 1e-6, 1e-5, 4e-4])
def test_denormal_scales_lose_no_more_than_their_rounding(size: float) -> None:
    matrix = np.linspace(-size, size, 32, dtype=np.float32)[None]
    words, scales = stored_rows(matrix, Q4MLC)
    error = np.abs(read_rows(words, scales, Q4MLC, 32) - matrix).max()
    assert error <= max(float(scales[0, 0]) / 2, 7 * float(F16.smallest_subnormal) / 2) * 1.001


@pytest.mark.parametrize("size", [4e5, 5e5, 1e6, 1e30, float(np.finfo(np.float32).max)])
def test_scales_never_overflow(size: float) -> None:
    matrix = np.zeros((1, 64), np.float32)
    matrix[0, :3] = size, -size, size / 100
    words, scales = stored_rows(matrix, Q4MLC)
    assert np.isfinite(scales).all()
    found = read_rows(words, scales, Q4MLC, 64)
    assert found[0, 0] == -found[0, 1] == 7 * float(scales[0, 0])
    assert not found[0, 3:].any()


def test_sign_symmetry() -> None:
    matrix = np.random.default_rng(0).standard_normal((4, 64), np.float32)
    words, scales = stored_rows(matrix, Q4MLC)
    mirrored, same = stored_rows(-matrix, Q4MLC)
    np.testing.assert_array_equal(scales, same)
    np.testing.assert_array_equal(
        read_rows(mirrored, scales, Q4MLC, 64), -read_rows(words, scales, Q4MLC, 64)
    )


def test_quantizing_twice_changes_nothing_more() -> None:
    matrix = np.random.default_rng(1).standard_normal((8, 128), np.float32)
    words, scales = stored_rows(matrix, Q4MLC)
    again = stored_rows(read_rows(words, scales, Q4MLC, 128), Q4MLC)
    np.testing.assert_array_equal(words, again[0])
    np.testing.assert_array_equal(scales, again[1])


def test_input_is_left_alone() -> None:
    matrix = np.random.default_rng(2).standard_normal((2, 40), np.float32)
    before = matrix.copy()
    quantize(matrix, Q4MLC)
    np.testing.assert_array_equal(matrix, before)


def test_schemes_by_name() -> None:
    assert find_scheme(DEFAULT_SCHEME).weights.is_integer
    for name, scheme in SCHEMES.items():
        assert find_scheme(name) is scheme
        assert scheme.vision in SCHEMES
    assert [s.weights.bits_per_weight for s in SCHEMES.values()] == [
        *(32, 16, 16.5, 8.5, 4.5, 4.25, 3.25)
    ]
    with pytest.raises(UsageError, match=r"unknown quantization.*q4f16_1.*'q3'"):
        find_scheme("q3")


UNEVEN = pytest.mark.parametrize("weight_format", [Q4NL, Q3NL], ids=["q4nl", "q3nl"])


@UNEVEN
@settings(deadline=None, derandomize=True)
@given(matrix=matrices, rounding=st.sampled_from(["nearest", "search"]))
def test_every_weight_goes_to_the_nearest_level(
    weight_format: WeightFormat, matrix: npt.NDArray[np.float32], rounding: Rounding
) -> None:
    """By the stored scale; half-way between two, to the greater."""
    found = quantize(matrix, weight_format, rounding)
    scales, rows = found.scales, found.row_scales
    assert rows is not None
    assert (found.integers.dtype, scales.dtype, rows.dtype) == (np.uint8, np.int8, np.float32)
    assert (found.integers.shape, rows.shape) == (matrix.shape, (len(matrix),))
    assert (scales != 0).all()
    assert (np.abs(scales.astype(int)) <= 127).all()
    step = np.repeat(scales.astype(np.float32) * rows[:, None], GROUP_SIZE, axis=1)
    units = (matrix / step[:, : matrix.shape[1]]).astype(np.float64)
    levels = np.array(weight_format.levels, np.float64)
    distances = np.abs(units[..., None] - levels)
    nearest = distances.min(-1)
    # Of equal distances the last: the greater level.
    expected = len(levels) - 1 - distances[..., ::-1].argmin(-1)
    np.testing.assert_array_equal(found.integers, expected)
    assert (np.abs(levels[found.integers] - units) == nearest).all()


@pytest.mark.parametrize("weight_format", [Q4NL, Q3NL], ids=["q4nl", "q3nl"])
def test_levels(weight_format: WeightFormat) -> None:
    """What kernels rely on: bytes from 0 to 32, and sums of 16 products within 16 bits."""
    levels = weight_format.levels
    assert list(levels) == sorted(set(levels)) and len(levels) == 2**weight_format.bits
    assert 0 in levels and weight_format.zero_point == levels.index(0)
    assert (levels[0], levels[-1]) == (weight_format.lowest, weight_format.highest)
    assert all(abs(level) <= MAX_LEVEL for level in levels)
    assert 16 * MAX_LEVEL * 127 <= 2**15 - 1


def test_levels_half_way_and_beyond_the_ends() -> None:
    grid = Q3NL.grid
    values = np.array([-99, -16, -13, -13.01, -8, -1, -1.01, 1.5, 1.49, 9.5, 12, 99], np.float32)
    expected = [-16, -16, -10, -16, -6, 0, -2, 3, 0, 12, 12, 12]
    out = np.empty_like(values)
    grid.round(values, out)
    assert out.tolist() == expected
    assert [Q3NL.levels[index] for index in grid.indices(values)] == expected
    grid.round(values, values)
    assert values.tolist() == expected


@UNEVEN
@settings(deadline=None, derandomize=True)
@given(matrix=matrices, rounding=st.sampled_from(["nearest", "search"]))
def test_scales_in_multiples_of_their_rows(
    weight_format: WeightFormat, matrix: npt.NDArray[np.float32], rounding: Rounding
) -> None:
    """No weight is further off than half a gap of levels, or than what lies beyond the last."""
    words, scales, rows = stored_rows(matrix, weight_format, rounding)
    width = matrix.shape[1]
    found = read_rows(words, scales, weight_format, width, rows)
    np.testing.assert_array_equal(found, from_rows(words, scales, rows, width, weight_format))
    step = steps(scales, width) * rows[:, None]
    levels = weight_format.levels
    ends = np.sort(np.stack([levels[0] * step, levels[-1] * step]), axis=0)
    beyond = np.maximum(matrix - ends[1], ends[0] - matrix)
    gap = max(np.diff(levels))
    slack = 1e-6 * np.abs(matrix) + np.finfo(np.float32).tiny
    error = np.abs(found - matrix.astype(np.float64))
    assert (error <= np.maximum(np.abs(step) * gap / 2, beyond) + slack).all()


def from_rows(
    words: npt.NDArray[np.uint32],
    scales: npt.NDArray[np.int8],
    rows: npt.NDArray[np.float32],
    width: int,
    weight_format: WeightFormat,
) -> npt.NDArray[np.float32]:
    """Weights, one by one, as docs/quantization.md says what they mean."""
    out = np.empty((len(words), width), np.float32)
    for n, k in np.ndindex(*out.shape):
        group, within = divmod(k, 32)
        if weight_format is Q4NL:
            index = int(words[n, k // 8]) >> 4 * (k % 8) & 15
        elif within < 24:
            index = int(words[n, 3 * group + within // 8]) >> 4 * (within % 8) & 7
        else:
            fourth = [int(words[n, 3 * group + b]) >> 4 * (within - 24) + 3 & 1 for b in range(3)]
            index = fourth[0] + 2 * fourth[1] + 4 * fourth[2]
        level = np.float32(weight_format.levels[index])
        out[n, k] = level * (np.float32(scales[n, k // 32]) * rows[n])
    return out


def test_bits_of_three_words() -> None:
    """By hand: indices 0 to 7 three times, and the last eight weights the other way round."""
    levels = np.array(Q3NL.levels)
    weights = np.concatenate([levels, levels, levels, levels[::-1]]) * np.float32(127)
    words, scales, _ = stored_rows(weights[None].astype(np.float32), Q3NL)
    assert scales.tolist() == [[127]]
    # The last eight are 7, 6, 5, 4, 3, 2, 1, 0: bit 0 of each is 1, 0, 1, 0, ..., bit 1 is
    # 1, 1, 0, 0, ..., bit 2 is 1, 1, 1, 1, 0, 0, 0, 0, the first in the lowest nibble.
    fourth = [0x08080808, 0x00880088, 0x00008888]
    assert words.tolist() == [[0x76543210 | bits for bits in fourth]]


@UNEVEN
def test_scales_of_their_rows_cost_next_to_nothing(weight_format: WeightFormat) -> None:
    """Half of the scales' bits, and less than six parts in 1,000 more squared error."""
    random = np.random.default_rng(4)
    matrix = random.standard_normal((64, 2048), np.float32)
    matrix *= np.exp(random.standard_normal((64, 64)) / 2).repeat(32, 1).astype(np.float32)
    halves = replace(weight_format, scale_dtype="float16")

    def error(stored: WeightFormat) -> float:
        found = dequantize(quantize(matrix, stored, "search"), stored)
        return float(np.square(found - matrix, dtype=np.float64).mean())

    assert error(weight_format) <= 1.006 * error(halves)


def test_uneven_levels_lose_less_than_even_ones() -> None:
    """Of normally distributed weights; the even levels of earlier versions are -8 to 7."""
    matrix = np.random.default_rng(5).standard_normal((64, 1024), np.float32)
    even = replace(Q4NL, levels=tuple(range(-8, 8)), lowest=-8, highest=7, zero_point=8)

    def error(stored: WeightFormat, rounding: Rounding) -> float:
        found = dequantize(quantize(matrix, stored, rounding), stored)
        return float(np.square(found - matrix, dtype=np.float64).mean())

    assert error(Q4NL, "search") < 0.92 * error(even, "search")
    for weight_format in (Q4NL, Q3NL):
        assert error(weight_format, "search") < 0.92 * error(weight_format, "nearest")


def test_the_sign_of_a_scale_gives_the_extreme_to_the_end_that_fits() -> None:
    """Levels reach further down than up: -16 and 12."""
    group = np.zeros((2, 32), np.float32)
    group[0, :3], group[1, :3] = (16, -12, 3), (-16, 12, -3)
    for rounding in ROUNDINGS:
        found = quantize(group, Q3NL, rounding)
        np.testing.assert_allclose(
            dequantize(found, Q3NL), [[16, -12, 2, *[0] * 29], [-16, 12, -2, *[0] * 29]], rtol=0.1
        )
        assert found.scales[0, 0] < 0 < found.scales[1, 0]


@UNEVEN
def test_a_row_of_zeros_and_a_faint_group(weight_format: WeightFormat) -> None:
    matrix = np.zeros((2, 64), np.float32)
    matrix[1, :32] = np.linspace(-1e4, 1e4, 32)
    matrix[1, 32:] = np.linspace(-30, 30, 32)  # below one part in 254 of the first group
    found = quantize(matrix, weight_format, "nearest")
    weights = dequantize(found, weight_format)
    assert not weights[0].any()
    assert abs(int(found.scales[1, 1])) == 1
    assert found.row_scales is not None
    gap = max(np.diff(weight_format.levels))
    assert np.abs(weights[1, 32:] - matrix[1, 32:]).max() <= gap * found.row_scales[1] / 2 * 1.001


def test_embedding_and_head_of_three_bits_have_four() -> None:
    plan = plan_quantization("q3a8")
    assert plan.names() == {
        "language": "q3a8",
        "embedding": "q4a8",
        "head": "q4a8",
        "vision": "q16a16",
        "cache": "int8",
    }
    chosen = plan_quantization("q3a8", embedding="q3a8", head="q8a8")
    assert (chosen.embedding.name, chosen.head.name) == ("q3a8", "q8a8")


def test_sharing_a_scale() -> None:
    assert [fit_groups_per_scale(groups, 8) for groups in (1, 8, 19, 12, 64, 176, 80)] == [
        *(1, 8, 1, 6, 8, 8, 8)
    ]
    assert fit_groups_per_scale(64, 1) == 1


INTEGERS = [each for each in vars(quantization).values() if isinstance(each, WeightFormat)]
INTEGERS = [each for each in INTEGERS if each.is_integer]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rounding", ["nearest", "search"])
@pytest.mark.parametrize(
    "weight_format", INTEGERS, ids=lambda weight_format: str(weight_format.name)
)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-30, 1e5, 1e30, 3.4028235e38])
def test_no_finite_weight_makes_numpy_warn(
    size: float, weight_format: WeightFormat, rounding: Rounding
) -> None:
    """Its warnings would reach standard error, without a tensor's name."""
    matrix = np.random.default_rng(0).uniform(-1, 1, (3, 96)).astype(np.float32)
    matrix[0] *= np.float32(size)
    matrix[1, 0] = size
    matrix[2] = -size
    found = quantize(matrix, weight_format, rounding)
    rows = [] if found.row_scales is None else [found.row_scales]
    assert all(np.isfinite(each).all() and each.all() for each in (found.scales, *rows))


@pytest.mark.parametrize("exponent", [-100, -60, 60, 100])
@pytest.mark.parametrize("rounding", ["nearest", "search"])
def test_levels_do_not_depend_on_the_size_of_all_weights(rounding: Rounding, exponent: int) -> None:
    """A power of two changes no digit, so it goes into the rows' scales alone."""
    matrix = np.random.default_rng(1).standard_normal((5, 96)).astype(np.float32)
    expected = quantize(matrix, Q4NL, rounding)
    found = quantize(np.ldexp(matrix, exponent), Q4NL, rounding)
    np.testing.assert_array_equal(found.integers, expected.integers)
    np.testing.assert_array_equal(found.scales, expected.scales)
    assert found.row_scales is not None and expected.row_scales is not None
    np.testing.assert_array_equal(found.row_scales, np.ldexp(expected.row_scales, exponent))


@pytest.mark.parametrize("part", ["embedding", "head", "vision"])
def test_an_empty_name_is_no_scheme(part: str) -> None:
    with pytest.raises(UsageError, match="unknown quantization"):
        plan_quantization("q3a8", **{part: ""})
