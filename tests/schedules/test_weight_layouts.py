"""Layouts of weights: what is packed is found again where the layout says that it lies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.models.quantization import SCHEMES, WEIGHT_FORMATS, quantize, read_offsets
from mvlm.models.weight_layout import LinearFormat, Matrix, WeightLayout
from mvlm.schedules.oracles.linear import stored_weights
from mvlm.schedules.registry import find_layout, kernel_set_names
from tests.models.stored_rows import multiples

LAYOUTS = {layout.name: layout for layout in map(find_layout, kernel_set_names())}
MATRICES = [
    *(Matrix(1, 1, each) for each in WEIGHT_FORMATS.values()),
    *(Matrix(1, 1, each.weights, each.activations) for each in SCHEMES.values()),
]
by_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def check_round_trip(layout: WeightLayout, matrix: Matrix, values: np.ndarray[Any, Any]) -> None:
    """Every weight, every scale and every row's scale is in its place, and nothing else is."""
    packed = dict(zip(layout.arrays(matrix), layout.pack(values, matrix, "nearest"), strict=True))
    expected = {name: (each.shape, str(each.dtype)) for name, each in packed.items()}
    assert expected == dict(layout.arrays(matrix))
    found = stored_weights(layout, matrix, packed)
    if not matrix.weight_format.is_integer:
        np.testing.assert_array_equal(found, values.astype(np.float64))
        return
    rounded = quantize(values, matrix.weight_format)
    np.testing.assert_array_equal(found, multiples(rounded)[0])
    features = np.arange(matrix.features)
    groups = np.arange(matrix.groups)
    at = layout.scale(matrix, features[:, None], groups)
    np.testing.assert_array_equal(packed["scales"][at], rounded.scales)
    assert ("row_scales" in packed) == (rounded.row_scales is not None)
    if rounded.row_scales is not None:
        at = layout.row_scale(matrix, features)
        np.testing.assert_array_equal(packed["row_scales"][at], rounded.row_scales)
        np.testing.assert_array_equal(packed["levels"], rounded.levels)
    # A matrix that was rounded elsewhere is arranged alike.
    for array, name in zip(layout.pack_quantized(rounded, matrix), packed, strict=True):
        np.testing.assert_array_equal(array, packed[name])


def random_values(matrix: Matrix, seed: int) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).standard_normal((matrix.features, matrix.width))
    is_integer = matrix.weight_format.is_integer
    return values.astype("float32" if is_integer else matrix.weight_format.dtype)


@by_layout
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    of=st.sampled_from(MATRICES),
    features=st.integers(1, 70),
    width=st.integers(1, 130),
    seed=st.integers(0, 99),
)
def test_round_trip(layout: WeightLayout, of: Matrix, features: int, width: int, seed: int) -> None:
    matrix = Matrix(features, width, of.weight_format, of.activations)
    check_round_trip(layout, matrix, random_values(matrix, seed))


@by_layout
@pytest.mark.parametrize("of", MATRICES, ids=lambda of: f"{of.weight_format.name}-{of.activations}")
@pytest.mark.parametrize("value", [0.0, 6e4, -6e4, 1e-7])
def test_extreme_values(layout: WeightLayout, of: Matrix, value: float) -> None:
    matrix = Matrix(17, 33, of.weight_format, of.activations)
    values = random_values(matrix, 1)
    values[3, 5] = values[16, 32] = value
    values[4:6] = value
    check_round_trip(layout, matrix, values)


@by_layout
@pytest.mark.parametrize("of", MATRICES, ids=lambda of: f"{of.weight_format.name}-{of.activations}")
@pytest.mark.parametrize(("features", "width"), [(1, 1), (17, 33), (16, 64)])
def test_places_are_plain_arithmetic(
    layout: WeightLayout, of: Matrix, features: int, width: int
) -> None:
    """Of integers they are what they are of arrays; no two weights share one."""
    matrix = Matrix(features, width, of.weight_format, of.activations)
    whole = layout.pieces(matrix, np.arange(features)[:, None], np.arange(width))
    shape = layout.arrays(matrix)["weight"][0]
    bits = list[tuple[int, ...]]()
    for j, k in itertools.product(range(features), range(width)):
        pieces = layout.pieces(matrix, j, k)
        for piece, of_all in zip(pieces, whole, strict=True):
            at = [np.broadcast_to(each, (features, width))[j, k] for each in of_all.index]
            assert list(piece.index) == at
            assert all(0 <= i < extent for i, extent in zip(piece.index, shape, strict=True))
            if piece.shift is None:
                assert of_all.shift is None and len(pieces) == 1
                bits.append((*map(int, piece.index),))
                continue
            assert int(piece.shift) == np.broadcast_to(of_all.shift, (features, width))[j, k]
            assert (piece.bits, piece.position) == (of_all.bits, of_all.position)
            shifts = range(int(piece.shift), int(piece.shift) + piece.bits)
            bits += [(*map(int, piece.index), shift) for shift in shifts]
        positions = [p for each in pieces for p in range(each.position, each.position + each.bits)]
        assert sorted(positions) == list(range(len(positions)))
    count = 1 if whole[0].shift is None else matrix.weight_format.bits
    assert len(set(bits)) == len(bits) == features * width * count


@by_layout
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_fills_a_matrix_up_is_zero(layout: WeightLayout, scheme: str) -> None:
    """Weights of integer activations are filled up to whole groups along K, as those are.

    Activations are zero there. Without tables the weights are as well; with tables they are the
    least level.
    """
    made = LinearFormat(SCHEMES[scheme], layout).matrix(5, 33)
    whole = Matrix(5, made.stored_width, made.weight_format, made.activations)
    assert whole.width == (33 if made.activations == "float32" else 64)
    arrays = layout.pack(random_values(made, 2), made, "nearest")
    packed = dict(zip(layout.arrays(made), arrays, strict=True))
    found = stored_weights(layout, whole, packed)
    assert found[:, :33].any()
    if made.weight_format.has_tables:
        at = layout.scale(made, np.arange(5), 1)
        found = found - read_offsets(packed["scales"][at])[:, None]
        assert (found[:, 33:] == packed["levels"][0, 0]).all()
    else:
        assert not found[:, 33:].any()
