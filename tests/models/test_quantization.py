"""Quantization against a second implementation, and against what it promises."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from mvlm.models import quantization, weight_layout
from mvlm.models.bit_packing import pack_rows
from mvlm.models.quantization import (
    DEFAULT_SCHEME,
    GROUP_SIZE,
    MAX_LEVEL,
    MAX_SCALE,
    Q3NL,
    Q4MLC,
    Q4NL,
    SCHEMES,
    TABLE_LEVELS,
    QuantizedMatrix,
    WeightFormat,
    dequantize,
    find_scheme,
    find_table_scales,
    fit_groups_per_scale,
    pack_scales,
    plan_quantization,
    quantize,
    read_offsets,
    read_scales,
    round_to_tables,
)
from mvlm.models.rounding import Rounding
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


TABLES = pytest.mark.parametrize("weight_format", [Q4NL, Q3NL], ids=["q4nl", "q3nl"])
EITHER = st.sampled_from(["nearest", "search"])


def steps_of(found: QuantizedMatrix) -> npt.NDArray[np.float32]:
    """The step of every weight, as `dequantize` multiplies."""
    assert found.row_scales is not None
    scales = (found.scales & MAX_SCALE).astype(np.float32) * found.row_scales[:, None]
    return np.repeat(scales, GROUP_SIZE, axis=1)[:, : found.integers.shape[1]]


def squared_error(
    matrix: npt.NDArray[np.float32], weight_format: WeightFormat, rounding: Rounding = "search"
) -> float:
    found = dequantize(quantize(matrix, weight_format, rounding), weight_format)
    return float(np.square(found - matrix, dtype=np.float64).sum())


@TABLES
@settings(deadline=None, derandomize=True)
@given(matrix=matrices, rounding=EITHER)
def test_every_weight_goes_to_the_nearest_level(
    weight_format: WeightFormat, matrix: npt.NDArray[np.float32], rounding: Rounding
) -> None:
    """By the stored scale, offset and table; half-way between two, to the greater."""
    found = quantize(matrix, weight_format, rounding)
    rows, levels = found.row_scales, found.levels
    assert rows is not None and levels is not None
    dtypes = (found.integers.dtype, found.scales.dtype, rows.dtype, levels.dtype)
    assert dtypes == (np.uint8, np.int8, np.float32, np.int8)
    assert (found.integers.shape, rows.shape) == (matrix.shape, (len(matrix),))
    assert levels.shape == (1, TABLE_LEVELS) and levels[0] in weight_format.stored_levels
    table = levels[0, : 1 << weight_format.bits].astype(np.float32)
    step = steps_of(found)
    some = step > 0
    assert (largest(matrix)[~some] == 0).all() and (largest(matrix)[some] > 0).all()
    offsets = np.repeat(read_offsets(found.scales), GROUP_SIZE, axis=1)[:, : matrix.shape[1]]
    units = matrix[some] / step[some] - offsets[some]
    distances = np.abs(units[:, None] - table)
    chosen = table[found.integers[some]]
    nearest = distances.min(axis=1)
    # A value beside the middle of two may be rounded to it as the offset is subtracted.
    np.testing.assert_allclose(np.abs(chosen - units), nearest, rtol=1e-5, atol=1e-5)


@TABLES
def test_tables(weight_format: WeightFormat) -> None:
    """What kernels rely on: bytes, and sums of 16 products within 16 bits."""
    assert weight_format.zero_point == 0 and len(weight_format.tables) == 2
    for levels in weight_format.tables:
        assert list(levels) == sorted(set(levels)) and len(levels) == 2**weight_format.bits
        assert all(abs(level) <= MAX_LEVEL for level in levels)
    assert weight_format.stored_levels.shape == (2, TABLE_LEVELS)
    assert 16 * MAX_LEVEL * 127 <= 2**15 - 1


@TABLES
@pytest.mark.parametrize("count", [1, 7, 801, 802])
def test_levels_half_way_and_beyond_the_ends(weight_format: WeightFormat, count: int) -> None:
    values = np.linspace(-20, 20, 801, dtype=np.float32)
    values = np.append(values, np.float32(99))[-count:]
    for grid in weight_format.grids:
        # Of equal distances the last: the greater level.
        expected = [
            max(grid.levels, key=lambda level, value=value: (-abs(level - value), level))
            for value in values.tolist()
        ]
        out = np.empty_like(values)
        grid.round(values, out)
        assert out.tolist() == expected
        assert [grid.levels[index] for index in grid.indices(values)] == expected
        same = values.copy()
        grid.round(same, same)
        assert same.tolist() == expected


@TABLES
@settings(deadline=None, derandomize=True)
@given(matrix=matrices, rounding=EITHER)
def test_what_stored_bytes_stand_for(
    weight_format: WeightFormat, matrix: npt.NDArray[np.float32], rounding: Rounding
) -> None:
    """Weights, one by one, as docs/quantization.md says what they mean."""
    found = quantize(matrix, weight_format, rounding)
    weights = dequantize(found, weight_format)
    assert found.row_scales is not None and found.levels is not None
    for n, k in np.ndindex(*matrix.shape):
        byte = int(found.scales[n, k // 32])
        scale, offset = byte & 31, byte // 32 * 0.75  # the byte is signed
        level = int(found.levels[n // 16, found.integers[n, k]])
        expected = np.float32(level + offset) * (np.float32(scale) * found.row_scales[n])
        assert weights[n, k] == expected


def test_bytes_of_scales() -> None:
    scales, offsets = np.meshgrid(np.arange(32), np.arange(8))
    stored = pack_scales(scales, offsets)
    assert stored.dtype == np.int8 and len(np.unique(stored)) == 256
    assert pack_scales(np.array([5]), np.array([4])).tolist() == [5]  # offset 0
    assert pack_scales(np.array([5]), np.array([3])).tolist() == [5 - 32]
    np.testing.assert_array_equal(read_scales(stored), scales)
    np.testing.assert_array_equal(read_offsets(stored), offsets * 0.75 - 3)


def test_bits_of_three_words() -> None:
    """By hand: indices 0 to 7 three times, and the last eight weights the other way round."""
    up = np.arange(8)
    words = pack_rows(np.concatenate([up, up, up, up[::-1]])[None].astype(np.uint8), Q3NL)
    # The last eight are 7, 6, 5, 4, 3, 2, 1, 0: bit 0 of each is 1, 0, 1, 0, ..., bit 1 is
    # 1, 1, 0, 0, ..., bit 2 is 1, 1, 1, 1, 0, 0, 0, 0, the first in the lowest nibble.
    fourth = [0x08080808, 0x00880088, 0x00008888]
    assert words.tolist() == [[0x76543210 | bits for bits in fourth]]


def least_error(group: npt.NDArray[np.float32], row_scale: float, levels: tuple[int, ...]) -> float:
    """The least squared error of a group, by all scales and offsets that a byte holds."""
    best = np.inf
    for scale in range(1, 32):
        for offset in range(-4, 4):
            values = (np.array(levels) + offset * 0.75) * scale * row_scale
            distances = np.abs(group.astype(np.float64)[:, None] - values).min(axis=1)
            best = min(best, float(np.square(distances).sum()))
    return best


@TABLES
@pytest.mark.parametrize("width", [5, 32, 77])
@pytest.mark.parametrize("shift", [0, 0.8])
def test_search_comes_close_to_the_best_bytes(
    weight_format: WeightFormat, width: int, shift: float
) -> None:
    """By the table and the rows' scales that it has chosen; few weights have many minima."""
    random = np.random.default_rng(6)
    matrix = (random.standard_normal((16, width)) + shift * random.standard_normal((16, 1))).astype(
        np.float32
    )
    found = quantize(matrix, weight_format, "search")
    assert found.row_scales is not None and found.levels is not None
    levels = tuple(found.levels[0, : 1 << weight_format.bits].tolist())
    least = sum(
        least_error(matrix[n, start : start + GROUP_SIZE], float(found.row_scales[n]), levels)
        for n in range(len(matrix))
        for start in range(0, width, GROUP_SIZE)
    )
    error = squared_error(matrix, weight_format)
    assert 0.999 * least <= error <= (1.3 if width < GROUP_SIZE else 1.1) * least
    assert error < squared_error(matrix, weight_format, "nearest")


def even_steps(random: np.random.Generator, rows: int, bits: int) -> npt.NDArray[np.float32]:
    """Weights of which each group lies on even steps from a least one."""
    indices = random.binomial((1 << bits) - 1, 0.5, (rows, 8, GROUP_SIZE))
    indices[..., 0], indices[..., 1] = 0, (1 << bits) - 1
    middle = random.uniform(-1, 1, (rows, 8, 1)) + ((1 << bits) - 1) / 2
    return ((indices - middle) * random.uniform(0.5, 1, (rows, 8, 1))).astype(np.float32)


def test_each_16_rows_have_the_table_that_fits() -> None:
    random = np.random.default_rng(7)
    smooth = random.standard_normal((20, 256), np.float32) ** 3
    matrix = np.concatenate([even_steps(random, 16, 4).reshape(16, -1), smooth])
    found = quantize(matrix, Q4NL, "search")
    assert found.levels is not None
    assert found.levels.tolist() == [list(Q4NL.tables[table]) for table in (1, 0, 0)]
    # Rows depend on none but the others of their 16.
    for start, stop in ((0, 16), (16, 36), (32, 36)):
        for name in ("integers", "scales", "row_scales"):
            part = getattr(quantize(matrix[start:stop], Q4NL, "search"), name)
            np.testing.assert_array_equal(part, getattr(found, name)[start:stop])
    assert found.rows(slice(16, 36)).levels.tolist() == found.levels[1:].tolist()


@TABLES
def test_search_loses_less_than_nearest(weight_format: WeightFormat) -> None:
    matrix = np.random.default_rng(5).standard_normal((64, 1024), np.float32)
    error = squared_error(matrix, weight_format)
    assert error < 0.85 * squared_error(matrix, weight_format, "nearest")
    if weight_format is Q4NL:
        assert error < 0.8 * squared_error(matrix, Q4MLC)


def test_offsets_follow_groups_that_are_not_about_zero() -> None:
    """By up to three of 15 steps their error is hardly larger."""
    group = np.random.default_rng(8).uniform(-15, 15, (16, 64)).astype(np.float32)
    about_zero = squared_error(group, Q4NL)
    for shift in (-3, -1.5, 2.25):
        assert squared_error(group + np.float32(shift), Q4NL) < 1.3 * about_zero


@TABLES
def test_importance_lowers_the_error_of_a_column(weight_format: WeightFormat) -> None:
    matrix = np.random.default_rng(9).standard_normal((32, 45)).astype(np.float32)
    importance = np.ones(45, np.float32)
    importance[[3, 40]] = 1000
    importance[10] = 0
    plain = dequantize(quantize(matrix, weight_format, "search"), weight_format)
    scales = find_table_scales(matrix, weight_format, "search", importance)
    weighted = dequantize(round_to_tables(matrix, scales, weight_format), weight_format)
    errors = [np.square(each - matrix).sum(axis=0)[[3, 40]] for each in (plain, weighted)]
    assert (errors[1] < 0.1 * errors[0]).all()
    # A factor of all columns changes nothing.
    for factor in (2.0**-80, 2.0**80):
        again = find_table_scales(matrix, weight_format, "search", importance * np.float32(factor))
        np.testing.assert_array_equal(again.stored, scales.stored)
    nothing = find_table_scales(matrix, weight_format, "search", np.zeros(45, np.float32))
    assert (read_scales(nothing.stored) > 0).all()


@TABLES
@pytest.mark.parametrize("rounding", ["nearest", "search"])
def test_groups_of_zeros_and_a_faint_group(weight_format: WeightFormat, rounding: Rounding) -> None:
    matrix = np.zeros((3, 96), np.float32)
    matrix[1, :32] = np.linspace(-1e4, 1e4, 32)
    matrix[1, 32:64] = np.linspace(-30, 30, 32)  # far below the 31st part of the first group
    matrix[2, 70] = -1
    found = quantize(matrix, weight_format, rounding)
    weights = dequantize(found, weight_format)
    assert not weights[0].any() and not weights[1, 64:].any() and not weights[2, :64].any()
    scales = read_scales(found.scales)
    assert scales[1, 1] == 1 and scales[1, 2] == 0 and scales[2, 2] == 31
    assert found.row_scales is not None
    np.testing.assert_allclose(weights[2, 70], -1, rtol=0.01 if rounding == "search" else 0.1)
    change = np.abs(weights[1, 32:64] - matrix[1, 32:64]).max()
    assert change <= 2 * found.row_scales[1]


@TABLES
@pytest.mark.parametrize("rounding", ["nearest", "search"])
@pytest.mark.parametrize("rows", [1, 16, 17])
def test_single_columns(weight_format: WeightFormat, rounding: Rounding, rows: int) -> None:
    """A group of one weight has it nearly as it is."""
    matrix = np.random.default_rng(rows).standard_normal((rows, 33)).astype(np.float32)
    weights = dequantize(quantize(matrix[:, :1], weight_format, rounding), weight_format)
    np.testing.assert_allclose(weights, matrix[:, :1], rtol=1e-6 if rounding == "search" else 0.1)
    assert quantize(matrix, weight_format, rounding).scales.shape == (rows, 2)


@pytest.mark.parametrize("language", ["q3a8", "q4a8"])
def test_embedding_and_head_of_few_bits_have_eight(language: str) -> None:
    assert plan_quantization(language).names() == {
        "language": language,
        "embedding": "q8a8",
        "head": "q8a8",
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
    if found.row_scales is None:
        assert np.isfinite(found.scales).all() and found.scales.all()
    else:
        assert np.isfinite(found.row_scales).all() and found.row_scales.all()
        assert (read_scales(found.scales) > 0)[largest(matrix)[:, ::GROUP_SIZE] > 0].all()


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
