"""How matrices lie in panels, against the documented places, one weight at a time."""

from __future__ import annotations

import numpy as np
import pytest

from mvlm.models.quantization import Q4, Q8, Q16, WeightFormat, quantize, unpack
from mvlm.schedules.cpu import panels
from tests.panels import from_panels

SHAPES = [(1, 1), (16, 32), (17, 33), (40, 100)]


@pytest.mark.parametrize("weight_format", [Q4, Q8, Q16], ids=["q4", "q8", "q16"])
@pytest.mark.parametrize(("features", "width"), SHAPES)
def test_every_weight_is_in_its_place(
    weight_format: WeightFormat, features: int, width: int
) -> None:
    random = np.random.default_rng(0)
    integers = random.integers(weight_format.lowest, weight_format.highest + 1, (features, width))
    scales = random.integers(-127, 128, (features, -(-width // 32))).astype(
        weight_format.scale_dtype
    )
    rows = [random.random(features, np.float32)] if weight_format is Q4 else []
    arrays = panels.to_panels(integers, [scales, *rows], weight_format)
    expected_arrays = panels.panel_layout(weight_format).arrays(width, features)
    assert [(found.shape, found.dtype) for found in arrays] == list(expected_arrays.values())
    assert list(expected_arrays) == ["weight", "scales", "row_scales"][: len(arrays)]
    packed, packed_scales, *packed_rows = arrays
    assert packed.dtype == (np.int16 if weight_format is Q16 else np.uint8)
    assert packed_scales.dtype == (np.int8 if weight_format is Q4 else np.float16)
    for n in range(-(-features // 16) * 16):
        for k in range(-(-width // 32) * 32):
            inside = n < features and k < width
            expected = int(integers[n, k]) if inside else 0
            assert level(packed, n, k, weight_format) == expected
    np.testing.assert_array_equal(from_panels(packed_scales, features), scales)
    for found, expected_rows in zip(packed_rows, rows, strict=True):
        np.testing.assert_array_equal(found.ravel()[:features], expected_rows)
        assert not found.ravel()[features:].any()


def level(packed: np.ndarray, n: int, k: int, weight_format: WeightFormat) -> int:
    """The weight of feature n at k, as docs/quantization.md says where it is."""
    p, c, g, within = n // 16, n % 16, k // 32, k % 32
    if weight_format is Q16:
        return int(packed[p, g, within // 2, 2 * c + within % 2])
    if weight_format is Q8:
        return int(packed[p, g, within // 4, 4 * c + within % 4]) - 128
    half, s, j = within // 16, within % 16 // 4, within % 4
    byte = int(packed[p, g, s, 4 * c + j])
    return (byte // 16 if half else byte % 16) - 8


@pytest.mark.parametrize(("features", "count"), SHAPES)
def test_interleaved_panels(features: int, count: int) -> None:
    rows = np.arange(1, features * count + 1, dtype=np.float32).reshape(features, count)
    packed = panels.interleave_panels(rows)
    assert packed.shape == (panels.panel_count(features), count, 16)
    np.testing.assert_array_equal(from_panels(packed, features), rows)
    assert not packed.transpose(0, 2, 1).reshape(-1, count)[features:].any()


@pytest.mark.parametrize("weight_format", [Q4, Q8, Q16], ids=["q4", "q8", "q16"])
def test_a_large_matrix_is_arranged_in_blocks(
    weight_format: WeightFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = np.random.default_rng(2).standard_normal((100, 70)).astype(np.float32)
    whole = panels.quantize_to_panels(matrix, weight_format, "nearest")
    elements, *scales = quantize(matrix, weight_format, "nearest")
    expected = panels.to_panels(unpack(elements, weight_format)[:, :70], scales, weight_format)
    monkeypatch.setattr(panels, "_BLOCK_VALUES", 2 * 16 * 70)
    blocks = panels.quantize_to_panels(matrix, weight_format, "nearest")
    for found in (whole, blocks):
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left, right)
