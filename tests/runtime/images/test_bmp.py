"""BMP: every depth, masks, alpha, runs, both directions, every header, and damage."""

import struct

import numpy as np
import pytest

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.bmp_files import (
    ALPHA_MASKS,
    MASKS,
    RLE4,
    RLE8,
    bgrx,
    bmp,
    masked,
    packed,
)
from tests.runtime.images.oracle import by_opencv, largest_difference, on_white, ours

WIDTH, HEIGHT = 13, 7
RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def palette_of(entries: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (entries, 3), dtype=np.uint8)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 24])
def test_plain_pixels(bits: int, header: int, top_down: bool) -> None:
    if bits == 24:
        rows = [row[:, ::-1].tobytes() for row in COLOURS]
        data, expected = bmp(rows, WIDTH, 24, header=header, top_down=top_down), COLOURS
    else:
        palette = palette_of(2**bits)
        indexes = RANDOM.integers(0, 2**bits, (HEIGHT, WIDTH))
        data = bmp(
            packed(indexes, bits), WIDTH, bits, palette=bgrx(palette), header=header,
            top_down=top_down,
        )  # fmt: skip
        expected = palette[indexes]
    np.testing.assert_array_equal(ours(data), expected)
    if bits != 2 and header in (40, 108, 124):  # OpenCV knows neither 2 bits nor rare headers.
        np.testing.assert_array_equal(by_opencv(data), expected)


@pytest.mark.parametrize("bits", [1, 4, 8, 24])
def test_the_core_header(bits: int) -> None:
    if bits == 24:
        data = bmp([row[:, ::-1].tobytes() for row in COLOURS], WIDTH, 24, header=12)
        expected = COLOURS
    else:
        palette = palette_of(2**bits)
        indexes = RANDOM.integers(0, 2**bits, (HEIGHT, WIDTH))
        data = bmp(
            packed(indexes, bits), WIDTH, bits, palette=palette[:, ::-1].tobytes(), header=12
        )
        expected = palette[indexes]
    np.testing.assert_array_equal(ours(data), expected)
    np.testing.assert_array_equal(by_opencv(data, with_alpha=False), expected)


def test_grey_palettes_in_any_order() -> None:
    indexes = RANDOM.integers(0, 256, (HEIGHT, WIDTH))
    for palette in (GREYS, GREYS[::-1], GREYS[::2]):
        data = bmp(packed(indexes, 8), WIDTH, 8, palette=bgrx(palette), colours=len(palette))
        table = np.vstack([palette, np.zeros((256, 3), np.uint8)])
        np.testing.assert_array_equal(ours(data), table[indexes])


LAYOUTS = {
    "555": (16, (0x7C00, 0x3E0, 0x1F)),
    "565": (16, (0xF800, 0x7E0, 0x1F)),
    "444": (16, (0xF00, 0xF0, 0xF)),
    "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "BGR565": (16, (0x1F, 0x7E0, 0xF800)),
    "888": (32, (0xFF0000, 0xFF00, 0xFF)),
    "8888": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "RGBA": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "BGRX": (32, (0xFF000000, 0xFF0000, 0xFF00)),
    "101010": (32, (0x3FF00000, 0xFFC00, 0x3FF)),
}


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [40, 56, 124])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks(layout: str, header: int, top_down: bool) -> None:
    bits, masks = LAYOUTS[layout]
    whites = np.array([mask >> ((mask & -mask).bit_length() - 1) for mask in masks])
    samples = np.random.default_rng(2).integers(0, whites + 1, (HEIGHT, WIDTH, len(masks)))
    compression = ALPHA_MASKS if header == 40 and len(masks) == 4 else MASKS
    data = bmp(
        masked(samples, masks, bits), WIDTH, bits, compression=compression, masks=masks,
        header=header, top_down=top_down,
    )  # fmt: skip
    expected = np.rint(samples * 255 / whites).astype(int)
    if len(masks) == 4:
        composited = on_white(expected[..., :3], expected[..., 3])
        np.testing.assert_allclose(ours(data), composited, atol=1)  # Pillow rounds down.
    else:
        np.testing.assert_array_equal(ours(data), expected)


@pytest.mark.parametrize(
    ("layout", "header", "allowed"),
    [
        # OpenCV shifts 5 bits up and fills with 0, so its white is 248.
        ("555", 40, 7),
        ("565", 40, 7),
        # It knows masks of 32 bits only in the longer headers. It rounds 10 bits in another way.
        *(
            (layout, header, 0)
            for layout in ("888", "8888", "RGBA", "BGRX")
            for header in (56, 124)
        ),
        ("101010", 124, 1),
    ],
)
def test_the_same_masks_in_opencv(layout: str, header: int, allowed: int) -> None:
    bits, masks = LAYOUTS[layout]
    whites = np.array([mask >> ((mask & -mask).bit_length() - 1) for mask in masks])
    samples = np.random.default_rng(2).integers(0, whites + 1, (HEIGHT, WIDTH, len(masks)))
    rows = masked(samples, masks, bits)
    data = bmp(rows, WIDTH, bits, compression=MASKS, masks=masks, header=header)
    # Composited pixels are rounded in two ways.
    allowed += int(len(masks) == 4)
    assert largest_difference(ours(data), by_opencv(data)) <= allowed


@pytest.mark.parametrize("bits", [16, 32])
def test_the_default_masks(bits: int) -> None:
    _, masks = LAYOUTS["555" if bits == 16 else "888"]
    whites = 31 if bits == 16 else 255
    samples = np.random.default_rng(2).integers(0, whites + 1, (HEIGHT, WIDTH, 3))
    rows = masked(samples, masks, bits)
    expected = np.rint(samples * 255 / whites).astype(int)
    np.testing.assert_array_equal(ours(bmp(rows, WIDTH, bits)), expected)
    for header in (56, 124):
        zero = bmp(rows, WIDTH, bits, compression=MASKS, masks=(0, 0, 0, 0), header=header)
        np.testing.assert_array_equal(ours(zero), expected)


@pytest.mark.parametrize("header", [56, 108, 124])
def test_alpha_that_is_zero_everywhere_was_never_set(header: int) -> None:
    _, masks = LAYOUTS["8888"]
    samples = np.dstack([COLOURS, np.zeros((HEIGHT, WIDTH), np.uint8)])
    rows = masked(samples, masks, 32)
    data = bmp(rows, WIDTH, 32, compression=MASKS, masks=masks, header=header)
    np.testing.assert_array_equal(ours(data), COLOURS)
    samples[2, 3, 3] = 255  # One pixel that is set, and alpha counts.
    data = bmp(masked(samples, masks, 32), WIDTH, 32, compression=MASKS, masks=masks, header=header)
    expected = np.full_like(COLOURS, 255)
    expected[2, 3] = COLOURS[2, 3]
    np.testing.assert_array_equal(ours(data), expected)


def test_the_unused_byte_of_plain_32_bits_is_no_alpha() -> None:
    samples = np.dstack([COLOURS, np.arange(WIDTH, dtype=np.uint8)[None].repeat(HEIGHT, 0)])
    rows = masked(samples, LAYOUTS["8888"][1], 32)
    np.testing.assert_array_equal(ours(bmp(rows, WIDTH, 32)), COLOURS)


PALETTE_8, PALETTE_4 = palette_of(256), palette_of(16)
RUNS_8 = [
    bytes([3, 5, 10, 7, 0, 0]),  # two runs, the end of the row
    bytes([0, 5, 1, 2, 3, 4, 5, 0, 8, 9, 0, 0]),  # five literals and one byte of padding
    bytes([0, 4, 1, 2, 3, 4, 0, 0]),  # the rest is left out
    bytes([255, 6, 0, 0]),  # a run that is too long
]
INDEXES_8 = np.array([
    [5] * 3 + [7] * 10,
    [1, 2, 3, 4, 5] + [9] * 8,
    [1, 2, 3, 4] + [0] * 9,
    [6] * 13,
])  # fmt: skip


def from_bottom(rows: list[bytes]) -> bytes:
    return b"".join(rows[::-1])


def test_runs_of_8_bits() -> None:
    data = bmp(
        [from_bottom(RUNS_8) + bytes([0, 1])], WIDTH, 8, compression=RLE8,
        palette=bgrx(PALETTE_8), height=4,
    )  # fmt: skip
    np.testing.assert_array_equal(ours(data), PALETTE_8[INDEXES_8])


def test_runs_of_4_bits() -> None:
    rows = [
        bytes([7, 0x12, 6, 0x34, 0, 0]),  # an odd run alternates from its first half
        bytes([0, 5, 0x12, 0x34, 0x50, 0, 8, 0x99, 0, 0]),  # odd literals: 3 bytes and padding
        bytes([0, 6, 0x12, 0x34, 0x56, 0, 7, 0xAA, 0, 0]),
        bytes([0, 8, 0x12, 0x34, 0x56, 0x78, 5, 0xBB, 0, 0]),
    ]
    expected = np.array([
        [1, 2, 1, 2, 1, 2, 1, 3, 4, 3, 4, 3, 4],
        [1, 2, 3, 4, 5] + [9] * 8,
        [1, 2, 3, 4, 5, 6] + [10] * 7,
        [1, 2, 3, 4, 5, 6, 7, 8] + [11] * 5,
    ])  # fmt: skip
    data = bmp(
        [from_bottom(rows) + bytes([0, 1])], WIDTH, 4, compression=RLE4,
        palette=bgrx(PALETTE_4), height=4,
    )  # fmt: skip
    np.testing.assert_array_equal(ours(data), PALETTE_4[expected])
    np.testing.assert_array_equal(by_opencv(data), PALETTE_4[expected])


def test_runs_may_move_and_end_early() -> None:
    runs = bytes([2, 5, 0, 2, 3, 1, 4, 6, 0, 1])  # two pixels, three right and one up, four, end
    data = bmp([runs], WIDTH, 8, compression=RLE8, palette=bgrx(PALETTE_8), height=3)
    indexes = np.zeros((3, WIDTH), int)
    indexes[2, :2], indexes[1, 5:9] = 5, 6
    np.testing.assert_array_equal(ours(data), PALETTE_8[indexes])


PLAIN = bmp([row[:, ::-1].tobytes() for row in COLOURS], WIDTH, 24)


def with_field(offset: int, value: int, size: str = "I") -> bytes:
    data = bytearray(PLAIN)
    struct.pack_into("<" + size, data, offset, value)
    return bytes(data)


def test_sizes_and_offsets_that_do_not_matter_may_be_wrong() -> None:
    for data in (with_field(2, 7), with_field(34, 10**9), with_field(10, 0), PLAIN + b"more"):
        np.testing.assert_array_equal(ours(data), COLOURS)


def test_the_padding_of_the_last_row_may_be_missing() -> None:
    np.testing.assert_array_equal(ours(PLAIN[:-1]), COLOURS)


RUNS = bmp([RUNS_8[0]], WIDTH, 8, compression=RLE8, palette=bgrx(PALETTE_8), height=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PLAIN[:-2], "is cut short: .*278 of 280 bytes of pixels"),
        (PLAIN[:54], "is cut short: .*in front of the pixels"),
        (PLAIN[:30], "is cut short: .*inside of its header"),
        (PLAIN[:15], "is cut short: .*inside of its header"),
        (RUNS[:-8], "is cut short"),
        (with_field(14, 41), "a BMP header of 41 bytes"),
        (with_field(28, 23, "H"), "23 bits a pixel"),
        (with_field(30, 4), "kind that is not read: .*JPEG"),
        (with_field(30, 99), "kind that is not read: .*the compression 99"),
        (with_field(18, 0), "a size of 0x7"),
        (with_field(18, -3, "i"), "a size of -3x7"),
        (with_field(22, 0), "a size of 13x0"),
        (with_field(18, 40_000), "too many pixels"),
        (bmp([b"1234"], 1, 32, compression=MASKS, masks=(5, 2, 8)), "the mask 0x5"),
        (bmp([b"1234"], 1, 16, compression=MASKS, masks=(0xF0000, 2, 8)), "the mask 0xf0000"),
        (bmp([b"1234"], 1, 8, palette=b""), "cut short|without a palette"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)
