"""TIFF: samples of every kind, layouts, byte orders, transparency, odd tags, and damage."""

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, TiffImagePlugin

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.oracle import by_opencv, largest_difference, on_white, ours
from tests.runtime.images.tiff_files import (
    ASCII,
    BLACK_IS_ZERO,
    BYTE,
    CMYK,
    DEFLATE,
    FLOAT,
    LAB,
    LONG,
    LONG8,
    PACKBITS,
    PALETTE,
    RGB,
    SHORT,
    SIGNED,
    UNDEFINED,
    WHITE_IS_ZERO,
    YCBCR,
    Samples,
    Tags,
    tiff,
)

WIDTH, HEIGHT = 21, 13
UNSAID, ASSOCIATED, UNASSOCIATED = 0, 1, 2
ORDERS = ["<", ">"]


def random_samples(bits: int, channels: int) -> Samples:
    kind = {8: np.uint8, 32: np.uint32}.get(bits, np.uint16)
    values = np.random.default_rng(bits + channels).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    return values.astype(kind)


def upper_byte(samples: Samples, bits: int) -> Samples:
    """Return what is shown of colours, as in the official code."""
    return samples.astype(int) >> bits - 8


def rounded(samples: Samples, white: float) -> Samples:
    """Return what is shown of grey."""
    return np.floor(samples.astype(float) * 255 / white + 0.5).astype(int)


def assert_shows(data: bytes, expected: Samples) -> None:
    np.testing.assert_array_equal(ours(data), expected + np.zeros(3, int))


@pytest.mark.parametrize("compression", [1, DEFLATE])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey(bits: int, photometric: int, order: str, compression: int) -> None:
    samples, white = random_samples(bits, 1), 2**bits - 1
    data = tiff(samples, photometric, bits, order=order, compression=compression)
    if bits == 12 and order == ">":
        with pytest.raises(ImageError, match=r"kind that is not read: .*bits \(12,\)"):
            load_image(data)
        return
    light = white - samples.astype(int) if photometric == WHITE_IS_ZERO else samples
    assert_shows(data, rounded(light, white))
    # OpenCV reads neither 2, 4 and 12 bits, nor WhiteIsZero of 16 bits.
    if bits in (1, 8) or (bits == 16 and photometric == BLACK_IS_ZERO):
        np.testing.assert_array_equal(by_opencv(data), ours(data))


@pytest.mark.parametrize("compression", [1, DEFLATE])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize(("kind", "bits"), [(SIGNED, 16), (SIGNED, 32), (FLOAT, 32), (1, 32)])
def test_grey_that_does_not_say_what_white_is(
    kind: int, bits: int, photometric: int, order: str, compression: int
) -> None:
    random = np.random.default_rng(0)
    if kind == FLOAT:
        samples = random.random((HEIGHT, WIDTH, 1), np.float32)
        light = samples.astype(float)
    else:
        low, high = (0, 2**bits - 1) if kind == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        code = "iu"[kind == 1] + str(bits // 8)
        samples = random.integers(low, high, (HEIGHT, WIDTH, 1), endpoint=True).astype(code)
        samples[0, :2, 0] = low, high
        light = (samples.astype(float) - low) / (high - low)
    data = tiff(samples, photometric, bits, kind=kind, order=order, compression=compression)
    shown = np.rint(light * 255)
    assert_shows(data, (255 - shown if photometric == WHITE_IS_ZERO else shown).astype(int))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [1, DEFLATE])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [8, 16])
def test_colours(bits: int, order: str, compression: int, planar: bool) -> None:
    samples = random_samples(bits, 3)
    options: dict[str, Any] = {"order": order, "compression": compression, "planar": planar}
    data = tiff(samples, RGB, bits, **options)
    assert_shows(data, upper_byte(samples, bits))
    if bits == 8 or not planar:  # OpenCV mixes up planes of 16 bits.
        assert largest_difference(ours(data), by_opencv(data)) <= int(bits == 16)  # It rounds.


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("extra", [(), (UNSAID,), (ASSOCIATED,), (UNASSOCIATED,)])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_and_alpha(bits: int, extra: tuple[int, ...], order: str, planar: bool) -> None:
    samples = random_samples(bits, 4)
    if extra == (ASSOCIATED,):
        samples[..., :3] = np.minimum(samples[..., :3], samples[..., 3:])
    data = tiff(samples, RGB, bits, extra=extra, order=order, planar=planar)
    colours, alpha = upper_byte(samples[..., :3], bits), upper_byte(samples[..., 3], bits)
    expected = {
        (): on_white(colours, alpha),
        (UNSAID,): colours,
        (ASSOCIATED,): colours + 255 - alpha[..., None],
        (UNASSOCIATED,): on_white(colours, alpha),
    }[extra]
    np.testing.assert_allclose(ours(data), expected, atol=1)  # of dividing and rounding


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("extra", [(), (UNSAID,), (ASSOCIATED,), (UNASSOCIATED,)])
def test_grey_and_alpha(extra: tuple[int, ...], photometric: int) -> None:
    samples = random_samples(8, 2)
    alpha = samples[..., 1].astype(int)
    light = samples[..., :1].astype(int)
    if extra == (ASSOCIATED,):
        light = np.minimum(light, alpha[..., None])
    samples[..., :1] = 255 - light if photometric == WHITE_IS_ZERO else light
    data = tiff(samples, photometric, 8, extra=extra)
    expected = {
        (): light,
        (UNSAID,): light,
        (ASSOCIATED,): light + 255 - alpha[..., None],
        (UNASSOCIATED,): on_white(light + np.zeros(3, int), alpha),
    }[extra]
    np.testing.assert_allclose(ours(data), expected + np.zeros(3, int), atol=1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [16, 8])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_colour_maps(bits: int, scale: int, order: str) -> None:
    indexes = random_samples(bits, 1)
    colours = np.random.default_rng(3).integers(0, 2**scale, (3, 2**bits))
    tags: Tags = {320: (SHORT, tuple(colours.reshape(-1).tolist()))}
    data = tiff(indexes, PALETTE, bits, order=order, tags=tags)
    table = (colours >> scale - 8).T
    assert_shows(data, table[indexes[..., 0]])
    if bits == 8:
        np.testing.assert_array_equal(by_opencv(data), ours(data))


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"rows_per_strip": 4},
    "a strip a row": {"rows_per_strip": 1, "compression": DEFLATE},
    "big-endian strips": {"rows_per_strip": 5, "order": ">"},
    "tiles": {"tile": 16},
    "deflated tiles": {"tile": 16, "compression": DEFLATE},
    "planes of strips": {"rows_per_strip": 4, "planar": True},
    "planes of tiles": {"tile": 16, "planar": True, "order": ">"},
    "differences": {"predictor": True, "compression": DEFLATE},
    "big-endian tiles of differences": {
        "predictor": True, "compression": DEFLATE, "order": ">", "tile": 16,
    },
    "PackBits": {"compression": PACKBITS, "rows_per_strip": 3},
    "a BigTIFF": {"big": True},
    "a BigTIFF of tiles": {"big": True, "tile": 16, "compression": DEFLATE},
}  # fmt: skip


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, bits: int) -> None:
    options = LAYOUTS[layout]
    if options.get("compression") == PACKBITS:  # A run ends with its row: these rows are short.
        assert WIDTH * 3 * bits // 8 <= 128
    colours, grey = random_samples(bits, 3), random_samples(bits, 1)
    assert_shows(tiff(colours, RGB, bits, **options), upper_byte(colours, bits))
    data = tiff(grey, BLACK_IS_ZERO, bits, **options)
    assert_shows(data, rounded(grey, 2**bits - 1))
    if "tile" not in options or bits == 16:  # OpenCV refuses small tiles of 8 bits.
        np.testing.assert_array_equal(by_opencv(data), ours(data))


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_bits_in_reverse_order(bits: int, photometric: int) -> None:
    samples, white = random_samples(bits, 1), 2**bits - 1
    light = white - samples.astype(int) if photometric == WHITE_IS_ZERO else samples
    assert_shows(tiff(samples, photometric, bits, reversed_bits=True), rounded(light, white))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk(bits: int, order: str, planar: bool) -> None:
    samples = random_samples(bits, 4)
    light = 255 - upper_byte(samples, bits)
    data = tiff(samples, CMYK, bits, order=order, planar=planar)
    assert_shows(data, np.rint(light[..., :3] * light[..., 3:] / 255).astype(int))
    if bits == 8:
        assert largest_difference(ours(data), by_opencv(data)) <= 1  # It rounds in another way.


@pytest.mark.parametrize("compression", [1, DEFLATE])
@pytest.mark.parametrize("planar", [False, True])
def test_ycbcr(planar: bool, compression: int) -> None:
    samples = random_samples(8, 3)
    tags: Tags = {530: (SHORT, (1, 1))}
    data = tiff(samples, YCBCR, 8, compression=compression, planar=planar, tags=tags)
    luma, blue, red = (samples[..., c].astype(float) for c in range(3))
    blue, red = blue - 128, red - 128
    channels = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    np.testing.assert_allclose(ours(data), np.stack(channels, -1).clip(0, 255), atol=2)
    np.testing.assert_array_equal(by_opencv(data), ours(data))


def test_neutral_lab_is_grey() -> None:
    lightness = np.linspace(0, 255, WIDTH).astype(np.uint8)
    samples = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    samples[..., 0] = lightness
    star = lightness.astype(float) * 100 / 255
    y = np.where(star > 8, ((star + 16) / 116) ** 3, star / 903.3)
    linear = np.where(y > 0.0031308, 1.055 * y ** (1 / 2.4) - 0.055, 12.92 * y)
    shown = ours(tiff(samples, LAB, 8))
    # A profile's curves have a few hundred points.
    np.testing.assert_allclose(shown, np.rint(linear * 255)[None, :, None] + 0 * shown, atol=2)


def saved(mode: str, compression: str) -> bytes:
    """A file of Pillow's, for what is tedious to encode."""
    image = Image.fromarray(random_samples(8, 3)).filter(ImageFilter.GaussianBlur(2))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *((mode, "tiff_lzw") for mode in ("1", "L", "P", "RGB", "CMYK")),
        *(("1", name) for name in ("group3", "group4", "tiff_ccitt", "packbits")),
        *((mode, "jpeg") for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_compressions(mode: str, compression: str) -> None:
    data = saved(mode, compression)
    # JPEG, and the rounding of CMYK, may differ by 1.
    assert largest_difference(ours(data), by_opencv(data)) <= (1 if mode in ("RGB", "CMYK") else 0)


@pytest.mark.parametrize("compression", ["lzma", "zstd"])
def test_compressions_that_opencv_does_not_read(compression: str) -> None:
    np.testing.assert_array_equal(ours(saved("RGB", compression)), ours(saved("RGB", "tiff_lzw")))


@pytest.mark.parametrize(("big", "order"), [(False, "<"), (False, ">"), (True, "<")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_as_opencv_turns_it(orientation: int, big: bool, order: str) -> None:
    tags: Tags = {274: (SHORT, (orientation,))}
    data = tiff(random_samples(8, 3), RGB, 8, tags=tags, big=big, order=order)
    np.testing.assert_array_equal(ours(data), by_opencv(data, with_alpha=False))


ODD_TAGS: dict[str, Tags] = {
    "a profile of garbage": {34675: (UNDEFINED, tuple(b"garbage"))},
    "EXIF behind the end": {34665: (LONG, (2**31,))},
    "EXIF at no number": {34665: (ASCII, tuple(b"garbage\0"))},
    "GPS at the header": {34853: (LONG, (0,))},
    "sub-images behind the end": {330: (LONG, (2**31, 2**32 - 1))},
    "XMP of garbage": {700: (BYTE, tuple(b"<garbage"))},
    "XMP that is a number": {700: (LONG, (7,))},
    "Photoshop of garbage": {34377: (BYTE, tuple(b"8BIM\x04"))},
    "a description of no encoding": {270: (ASCII, (255, 254, 0))},
    "a description without its end": {270: (ASCII, tuple(b"x" * 99))},
    "a resolution that is text": {282: (ASCII, tuple(b"dense\0"))},
    "a resolution unit of none": {296: (SHORT, (99,))},
    "private tags": {40000: (SHORT, (1,)), 65000: (BYTE, (1,)), 65535: (LONG, (1,))},
    "tags in front of the size": {1: (SHORT, (1,)), 254: (LONG, (2,)), 255: (SHORT, (99,))},
    "an orientation of none": {274: (SHORT, (99,))},
    "an orientation of two numbers": {274: (SHORT, (1, 6))},
    "a transfer function that is short": {301: (SHORT, (1, 2, 3))},
    "one number of bits for three samples": {258: (SHORT, (8,))},
    "one sample format for three samples": {339: (SHORT, (1,))},
    "a size of bytes": {256: (BYTE, (WIDTH,)), 257: (SHORT, (HEIGHT,))},
    "rows without a bound": {278: (LONG, (2**32 - 1,))},
    "a strip that is not counted": {279: (LONG, (0,))},
    "a last strip that is counted whole": {279: (LONG, (WIDTH * HEIGHT * 3 + 999,))},
}


@pytest.mark.parametrize("kind", ODD_TAGS)
def test_odd_tags_cost_no_intact_image(kind: str) -> None:
    samples = random_samples(8, 3)
    assert_shows(tiff(samples, RGB, 8, tags=ODD_TAGS[kind]), samples.astype(int))


def test_tags_of_an_unknown_type_and_second_ones_are_ignored() -> None:
    samples = random_samples(8, 3)
    data = bytearray(tiff(samples, RGB, 8, tags={65000: (SHORT, (1,)), 65001: (SHORT, (3,))}))
    unknown = data.rindex(struct.pack("<HH", 65000, SHORT))
    struct.pack_into("<HH", data, unknown, 256, 99)
    struct.pack_into("<HHII", data, unknown + 12, 256, SHORT, 1, 7)
    assert_shows(bytes(data), samples.astype(int))


def test_only_the_first_page_is_read() -> None:
    first = Image.fromarray(random_samples(8, 3))
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=[Image.new("L", (3, 3))])
    assert_shows(buffer.getvalue(), np.asarray(first).astype(int))


SOUND = tiff(random_samples(8, 3), RGB, 8)


def with_tags(tags: Tags) -> bytes:
    return tiff(random_samples(8, 3), RGB, 8, tags=tags)


def test_every_cut_is_named() -> None:
    for length in range(4, len(SOUND) - 4, 11):
        with pytest.raises(ImageError, match="is cut short"):
            load_image(SOUND[:length])


def test_cut_pixels_behind_the_directory_are_named() -> None:
    buffer = io.BytesIO()
    Image.fromarray(random_samples(8, 3)).save(buffer, "TIFF")  # The pixels come last.
    data = buffer.getvalue()
    for length in (len(data) - 1, len(data) - 500):
        with pytest.raises(ImageError, match="is cut short"):
            load_image(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_tags({256: (LONG, (0,))}), "damaged: .*a size of 0x13"),
        (with_tags({256: (ASCII, (65, 0))}), "damaged: .*type 2 for the tag WIDTH"),
        (with_tags({256: (LONG, (50_000,))}), "too many pixels"),
        (with_tags({273: (LONG, (2**31,))}), "cut short: .*inside of the pixels"),
        (with_tags({259: (SHORT, (34712,))}), "kind that is not read: .*compression 34712"),
        (with_tags({259: (SHORT, (8,))}), "damaged: .*pixels that libtiff cannot decode"),
        (with_tags({262: (SHORT, (32803,))}), "kind that is not read: .*interpretation 32803"),
        (with_tags({339: (SHORT, (3, 3, 3))}), "kind that is not read: .*sample format 3"),
        (with_tags({277: (SHORT, (60_000,))}), "is damaged|not read"),
        (tiff(random_samples(8, 2), 1, 8, planar=True, extra=(2,)), "kind that is not read"),
        (tiff(random_samples(8, 3), RGB, 8, big=True, order=">"), "a BigTIFF in big-endian"),
        (b"II*\0\4\0\0\0" + bytes(20), "damaged: .*directory of tags at byte 4"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "damaged: .*a size of NonexNone"),
        (with_tags({256: (LONG8, (WIDTH,))})[:-20], "cut short"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)


def test_pillow_is_left_as_it_was_and_libtiff_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    before = TiffImagePlugin.READ_LIBTIFF
    for data in (SOUND, with_tags({259: (SHORT, (8,))})):
        with suppress(ImageError):
            load_image(data)
        assert before is TiffImagePlugin.READ_LIBTIFF
    assert capfd.readouterr().err == ""
