"""How matrices lie in panels, against the documented places, one weight at a time."""

from __future__ import annotations

import numpy as np
import pytest

from mvlm.models import weight_layout
from mvlm.models.quantization import (
    Q3NL,
    Q4NL,
    Q8,
    Q16,
    QuantizedMatrix,
    WeightFormat,
    quantize,
)
from mvlm.models.weight_layout import Matrix
from mvlm.schedules.cpu import panels
from mvlm.schedules.cpu.panels import PANELS
from tests.panels import from_panels

SHAPES = [(1, 1), (16, 32), (17, 33), (40, 100)]
by_format = pytest.mark.parametrize(
    "weight_format", [Q4NL, Q3NL, Q8, Q16], ids=lambda weight_format: str(weight_format.name)
)


@by_format
@pytest.mark.parametrize(("features", "width"), SHAPES)
def test_every_weight_is_in_its_place(
    weight_format: WeightFormat, features: int, width: int
) -> None:
    random, has_tables = np.random.default_rng(0), weight_format.has_tables
    low, high = weight_format.lowest, weight_format.highest + 1
    if has_tables:
        low, high = 0, 1 << weight_format.bits
    integers = random.integers(low, high, (features, width)).astype(weight_format.integer_dtype)
    scales = random.integers(-127, 128, (features, -(-width // 32))).astype(
        weight_format.scale_dtype
    )
    rows = random.random(features, np.float32) if has_tables else None
    tables = random.integers(-16, 17, (-(-features // 16), 16), np.int8) if has_tables else None
    quantized = QuantizedMatrix(integers, scales, rows, tables)
    arrays = panels.to_panels(quantized, weight_format)
    expected_arrays = panels.panel_layout(weight_format).arrays(width, features)
    assert [(found.shape, found.dtype) for found in arrays] == list(expected_arrays.values())
    assert list(expected_arrays) == ["weight", "scales", "row_scales", "levels"][: len(arrays)]
    packed, packed_scales, *packed_rows = arrays
    assert packed.dtype == (np.int16 if weight_format is Q16 else np.uint8)
    assert packed_scales.dtype == (np.int8 if has_tables else np.float16)
    for n in range(-(-features // 16) * 16):
        for k in range(-(-width // 32) * 32):
            inside = n < features and k < width
            expected = int(integers[n, k]) if inside else weight_format.zero_point
            assert integer(packed, n, k, weight_format) == expected
    np.testing.assert_array_equal(from_panels(packed_scales, features), scales)
    assert len(packed_rows) == (0 if rows is None else 2)
    if rows is not None:
        np.testing.assert_array_equal(packed_rows[1], tables)
        np.testing.assert_array_equal(packed_rows[0].ravel()[:features], rows)
        assert not packed_rows[0].ravel()[features:].any()


def integer(packed: np.ndarray, n: int, k: int, weight_format: WeightFormat) -> int:
    """The stored integer of feature n at k, as docs/quantization.md says where it is."""
    p, c, g, within = n // 16, n % 16, k // 32, k % 32
    if weight_format is Q16:
        return int(packed[p, g, within // 2, 2 * c + within % 2])
    if weight_format is Q8:
        return int(packed[p, g, within // 4, 4 * c + within % 4]) - 128
    half, s, j = within // 16, within % 16 // 4, within % 4

    def nibble(step: int) -> int:
        return int(packed[p, g, step, 4 * c + j]) // (16 if half else 1) % 16

    if weight_format is Q4NL:
        return nibble(s)
    if s < 3:
        return nibble(s) % 8
    return sum(nibble(bit) // 8 * 2**bit for bit in range(3))


def test_the_bytes_of_a_group_of_three_bits() -> None:
    """By hand: feature 1 has the index k % 8 at k."""
    indices = np.zeros((2, 32), np.uint8)
    indices[1] = np.arange(32) % 8
    table = np.tile(np.array(Q3NL.tables[0], np.int8), 2)[None]
    quantized = QuantizedMatrix(indices, np.ones((2, 1), np.int8), np.ones(2, np.float32), table)
    packed, *_ = panels.to_panels(quantized, Q3NL)
    assert packed.shape == (1, 1, 3, 64)
    # Bytes 4 to 7 are feature 1's. Step 0 holds k = 0 to 3 and 16 to 19, step 1 k = 4 to 7 and 20
    # to 23, step 2 k = 8 to 11 and 24 to 27, their indices 0 to 3, 4 to 7 and 0 to 3 in either
    # nibble. The fourth bits are those of k = 12 to 15 and 28 to 31, whose indices are 4 to 7: bit
    # 0 is 0, 1, 0, 1, bit 1 is 0, 0, 1, 1, and bit 2 is 1, 1, 1, 1.
    assert [packed[0, 0, step, 4:8].tolist() for step in range(3)] == [
        [0x00, 0x99, 0x22, 0xBB],
        [0x44, 0x55, 0xEE, 0xFF],
        [0x88, 0x99, 0xAA, 0xBB],
    ]
    # Feature 0 has index 0 everywhere, and so have the features of padding.
    assert not packed[0, 0, :, :4].any()
    assert not packed[0, 0, :, 8:].any()


@pytest.mark.parametrize(("features", "count"), SHAPES)
def test_interleaved_panels(features: int, count: int) -> None:
    rows = np.arange(1, features * count + 1, dtype=np.float32).reshape(features, count)
    packed = panels.interleave_panels(rows)
    assert packed.shape == (panels.panel_count(features), count, 16)
    np.testing.assert_array_equal(from_panels(packed, features), rows)
    assert not packed.transpose(0, 2, 1).reshape(-1, count)[features:].any()


@by_format
def test_a_large_matrix_is_arranged_in_blocks(
    weight_format: WeightFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(2).standard_normal((100, 70)).astype(np.float32)
    matrix = Matrix(100, 70, weight_format, weight_format.integer_activations)
    whole = PANELS.pack(values, matrix, "nearest")
    rounded = quantize(values, weight_format, "nearest")
    expected = panels.to_panels(rounded, weight_format)
    monkeypatch.setattr(weight_layout, "_BLOCK_VALUES", 2 * 16 * 70)
    blocks = PANELS.pack(values, matrix, "nearest")
    elsewhere = PANELS.pack_quantized(rounded, matrix)
    for found in (whole, blocks, elsewhere):
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left, right)
