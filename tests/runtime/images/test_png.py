"""PNG: every kind of pixels, transparency, metadata in any state, and every kind of damage."""

import struct
import zlib

import numpy as np
import pytest

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.oracle import by_opencv, largest_difference, on_white, ours
from tests.runtime.images.png_files import (
    DEPTHS,
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGBA,
    SIGNATURE,
    Samples,
    chunk,
    png,
    random_samples,
)

KINDS = [(colour_type, depth) for colour_type, depths in DEPTHS.items() for depth in depths]


def random_palette(depth: int) -> bytes:
    return np.random.default_rng(1).bytes(3 * 2**depth)


def eight_bit(samples: Samples, depth: int, is_grey: bool) -> Samples:
    """Grey is rounded; of 16-bit colours the upper byte is taken, as in the official code."""
    if depth == 16 and not is_grey:
        return samples >> 8
    return np.rint(samples * 255 / (2**depth - 1)).astype(int)


def expected_pixels(samples: Samples, colour_type: int, depth: int, palette: bytes) -> Samples:
    """Return what a viewer shows, (height, width, 3)."""
    if colour_type == PALETTE:
        return np.frombuffer(palette, np.uint8).reshape(-1, 3)[samples[..., 0]]
    scaled = eight_bit(samples, depth, is_grey=colour_type == GREY)
    if colour_type in (GREY_ALPHA, RGBA):
        return on_white(scaled[..., :-1] + np.zeros(3, int), scaled[..., -1])
    return scaled + np.zeros(3, int)  # Grey becomes three channels.


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("width", "height"), [(13, 11), (1, 1), (3, 2), (9, 1)])
@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_every_kind_of_pixels(
    colour_type: int, depth: int, width: int, height: int, interlaced: bool
) -> None:
    samples = random_samples(colour_type, depth, width, height)
    palette = random_palette(depth) if colour_type == PALETTE else b""
    data = png(samples, colour_type, depth, palette=palette, interlaced=interlaced)
    read = ours(data)
    # Pillow rounds a composited pixel down where it is between two values.
    np.testing.assert_allclose(read, expected_pixels(samples, colour_type, depth, palette), atol=1)
    if colour_type not in (GREY_ALPHA, RGBA):
        np.testing.assert_array_equal(read, expected_pixels(samples, colour_type, depth, palette))
    # OpenCV rounds 16-bit colours and alpha, of which we take the upper byte: by 1 each.
    assert largest_difference(read, by_opencv(data)) <= (2 if depth == 16 else 0)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", DEPTHS[GREY])
def test_a_transparent_grey(depth: int, interlaced: bool) -> None:
    samples = random_samples(GREY, depth)
    samples[5:, :4] = samples[0, 0]
    key = struct.pack(">H", samples[0, 0, 0])
    data = png(samples, GREY, depth, transparency=key, interlaced=interlaced)
    expected = eight_bit(samples, depth, is_grey=True)
    expected[samples == samples[0, 0, 0]] = 255
    np.testing.assert_array_equal(ours(data), expected.repeat(3, axis=2))
    # OpenCV ignores the transparency of grey; it reads the same image in RGB.
    if depth >= 8:
        twin = png(samples.repeat(3, axis=2), RGB, depth, transparency=3 * key)
        assert largest_difference(ours(data), by_opencv(twin)) == 0


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", DEPTHS[RGB])
def test_a_transparent_colour(depth: int, interlaced: bool) -> None:
    samples = random_samples(RGB, depth)
    samples[5:, :4] = samples[0, 0]
    # Of 16 bits: colours that differ from it in the lower or in the upper bytes alone are opaque.
    samples[0, 1] = samples[0, 0] ^ 1
    samples[0, 2] = samples[0, 0] ^ (1 << depth - 1)
    samples[0, 3] = samples[0, 0] ^ (0, 0, 1)
    key = samples[0, 0].astype(">u2").tobytes()
    data = png(samples, RGB, depth, transparency=key, interlaced=interlaced)
    expected = eight_bit(samples, depth, is_grey=False)
    expected[(samples == samples[0, 0]).all(axis=2)] = 255
    np.testing.assert_array_equal(ours(data), expected)
    assert largest_difference(ours(data), by_opencv(data)) <= (1 if depth == 16 else 0)


def test_a_transparent_colour_has_no_more_bits_than_the_samples() -> None:
    samples = random_samples(GREY, 4)
    high = struct.pack(">H", 0xF0 | int(samples[0, 0, 0]))  # libpng takes the lower bits.
    low = struct.pack(">H", samples[0, 0, 0])
    data = [png(samples, GREY, 4, transparency=key) for key in (high, low)]
    np.testing.assert_array_equal(ours(data[0]), ours(data[1]))


@pytest.mark.parametrize("entries", [1, 2, 4, 9])
@pytest.mark.parametrize("depth", DEPTHS[PALETTE])
def test_transparent_palette_entries(depth: int, entries: int) -> None:
    samples = random_samples(PALETTE, depth)
    palette = random_palette(depth)
    opacity = np.random.default_rng(2).integers(0, 256, entries, dtype=np.uint8)
    data = png(samples, PALETTE, depth, palette=palette, transparency=opacity.tobytes())
    alpha = np.append(opacity, np.full(256, 255, np.uint8))[samples[..., 0]]
    colours = expected_pixels(samples, PALETTE, depth, palette)
    np.testing.assert_allclose(ours(data), on_white(colours, alpha), atol=1)


def test_palette_indexes_without_an_entry_are_black() -> None:
    samples = np.array([[[0], [1], [2], [255]]])
    data = png(samples, PALETTE, 8, palette=b"\xff\x00\x00\x00\xff\x00")
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 0], [0, 0, 0]]
    assert ours(data)[0].tolist() == expected
    assert by_opencv(data)[0].tolist() == expected


def wrong_checksum(kind: bytes, body: bytes) -> bytes:
    return chunk(kind, body, checksum=12345)


BOMB = zlib.compress(bytes(200_000_000), 9)

METADATA = {
    "a text of 3 MB": chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "a thousand texts": chunk(b"tEXt", b"Comment\0" + b"x" * 70_000) * 1000,
    "a bomb in a text": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "a bomb in an international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "a bomb in a profile": chunk(b"iCCP", b"icc\0\0" + BOMB),
    "a profile of 1.5 MB": chunk(
        b"iCCP", b"icc\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_500_000))
    ),
    "a profile that is no deflate stream": chunk(b"iCCP", b"icc\0\0garbage"),
    "a profile of unknown compression": chunk(b"iCCP", b"icc\0\7garbage"),
    "a profile without its name's end": chunk(b"iCCP", b"icc"),
    "an empty profile": chunk(b"iCCP", b""),
    "a short gamma": chunk(b"gAMA", b"\0"),
    "a gamma": chunk(b"gAMA", struct.pack(">I", 10_000)),
    "an empty gamma": chunk(b"gAMA", b""),
    "odd chromaticities": chunk(b"cHRM", b"12345"),
    "an empty intent": chunk(b"sRGB", b""),
    "an empty density": chunk(b"pHYs", b""),
    "a short density": chunk(b"pHYs", b"\0\0\0\1"),
    "a short time": chunk(b"tIME", b"\0"),
    "a background": chunk(b"bKGD", b"\xff"),
    "an international text of broken UTF-8": chunk(b"iTXt", b"Comment\0\0\0\0\0\xff\xfe"),
    "a short international text": chunk(b"iTXt", b"Comment\0"),
    "a text without a keyword": chunk(b"tEXt", b""),
    "a compressed text of garbage": chunk(b"zTXt", b"Comment\0\0garbage"),
    "a compressed text of unknown compression": chunk(b"zTXt", b"Comment\0\7garbage"),
    "EXIF of garbage": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "empty EXIF": chunk(b"eXIf", b""),
    "EXIF of an orientation that is none": chunk(
        b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x63\0\0\0\0\0\0"
    ),
    "an animation of no frame": chunk(b"acTL", bytes(8)),
    "a short animation": chunk(b"acTL", b"\0"),
    "a frame that is larger than the image": chunk(
        b"acTL", struct.pack(">II", 2, 0)
    ) + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 999, 999, 9, 9, 1, 1, 0, 0)),
    "a histogram without a palette": chunk(b"hIST", b"\0\1"),
    "a chunk that nobody knows": chunk(b"abCd", b"whatever"),
    "a wrong checksum of a gamma": wrong_checksum(b"gAMA", struct.pack(">I", 45455)),
    "a wrong checksum of a text": wrong_checksum(b"tEXt", b"Comment\0text"),
    "a wrong checksum of a density": wrong_checksum(b"pHYs", bytes(9)),
    "a wrong checksum of EXIF": wrong_checksum(b"eXIf", b"MM\0*"),
    "a wrong checksum of an unknown chunk": wrong_checksum(b"abCd", b"whatever"),
}  # fmt: skip


@pytest.mark.parametrize("kind", METADATA)
def test_metadata_costs_no_intact_image(kind: str) -> None:
    samples = random_samples(RGB, 8)
    for where in ("before", "after"):
        data = png(samples, RGB, 8, **{where: METADATA[kind]})  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours(data), samples)


def test_pixels_may_be_in_many_chunks_with_others_between() -> None:
    samples = random_samples(RGB, 8)
    whole = png(samples, RGB, 8)
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    body = whole[start + 8 : start + 8 + length]
    pieces = b"".join(chunk(b"IDAT", bytes([byte])) for byte in body[:-1])
    between = chunk(b"tEXt", b"Comment\0x") + chunk(b"IDAT", b"") + chunk(b"IDAT", body[-1:])
    data = whole[:start] + pieces + between + whole[start + 12 + length :]
    np.testing.assert_array_equal(ours(data), samples)


def test_suggested_palettes_and_second_palettes_are_ignored() -> None:
    samples = random_samples(RGB, 8)
    np.testing.assert_array_equal(ours(png(samples, RGB, 8, palette=b"abc")), samples)
    indexes = random_samples(PALETTE, 1)
    palette = bytes([255, 0, 0, 0, 0, 255])
    twice = png(indexes, PALETTE, 1, palette=palette, after=chunk(b"PLTE", bytes(6)))
    np.testing.assert_array_equal(
        ours(twice), np.frombuffer(palette, np.uint8).reshape(2, 3)[indexes[..., 0]]
    )


def test_a_file_without_its_end_is_read_if_all_pixels_are_there() -> None:
    samples = random_samples(RGBA, 8)
    data = png(samples, RGBA, 8)
    rows_end = len(data) - 12 - 4  # in front of IDAT's checksum and IEND
    for length in range(8, len(data)):
        if length >= rows_end:
            np.testing.assert_array_equal(ours(data[:length]), ours(data))
        elif length < rows_end - 8:  # The end of deflate's stream, and its checksum.
            with pytest.raises(ImageError, match="is cut short"):
                load_image(data[:length])


def test_a_wrong_checksum_of_the_end_does_not_matter() -> None:
    samples = random_samples(RGB, 8)
    np.testing.assert_array_equal(ours(png(samples, RGB, 8)[:-1] + b"x"), samples)


def damaged(position_of: bytes, offset: int, value: int, samples: Samples | None = None) -> bytes:
    """Return a PNG with one other byte, and checksums that fit."""
    data = bytearray(png(random_samples(RGB, 8) if samples is None else samples, RGB, 8))
    start = data.index(position_of) + 4
    data[start + offset] = value
    (length,) = struct.unpack_from(">I", data, start - 8)
    data[start + length : start + length + 4] = struct.pack(
        ">I", zlib.crc32(data[start - 4 : start + length])
    )
    return bytes(data)


SOUND = png(random_samples(RGB, 8), RGB, 8)
INDEXES = random_samples(PALETTE, 2)
GREYS = random_samples(GREY, 8)
HEAD = len(SIGNATURE) + 25


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SOUND.replace(b"\r\n", b"\n"), "damaged: .*changed, as by a transfer as text"),
        (SOUND[:HEAD] + wrong_checksum(b"IDAT", b"x") + SOUND[HEAD:], "wrong checksum .* IDAT"),
        (SIGNATURE + SOUND[HEAD:], "chunk IDAT where IHDR"),
        (SIGNATURE + chunk(b"IHDR", b"x") + SOUND[HEAD:], "IHDR of 1 bytes instead of 13"),
        (SIGNATURE + chunk(b"IEND", b""), "no chunk IHDR"),
        (SOUND[:HEAD] + SOUND[8:], "IHDR is to be the first and only one"),
        (SIGNATURE + chunk(b"CgBI", bytes(4)) + SOUND[8:], "kind that is not read: .*CgBI"),
        (SOUND[:HEAD] + chunk(b"ABCD", b"") + SOUND[HEAD:], "the critical chunk ABCD"),
        (SOUND[:HEAD] + b"\0\0\0\1\1\2\3\4" + SOUND[HEAD:], "no chunk at byte 33"),
        (damaged(b"IHDR", 8, 4), "4 bits with the colour type 2"),
        (damaged(b"IHDR", 9, 5), "8 bits with the colour type 5"),
        (damaged(b"IHDR", 10, 1), "compression 1"),
        (damaged(b"IHDR", 12, 2), "interlacing 2"),
        (damaged(b"IHDR", 3, 0), "a size of 0x11"),
        (damaged(b"IHDR", 7, 12), "damaged: .*440 of 480 bytes of pixels"),
        (damaged(b"IDAT", 0, 0), "compressed pixels .* wrong"),
        (damaged(b"IDAT", 30, 255), "damaged: .*pixels"),
        (png(INDEXES, PALETTE, 2), "without a palette"),
        (png(INDEXES, PALETTE, 2, palette=bytes(4)), r"palette \(chunk PLTE\) of 4 bytes"),
        (png(INDEXES, PALETTE, 2, palette=bytes(3 * 257)), "palette .* of 771 bytes"),
        (png(GREYS, GREY, 8, transparency=b"\1"), r"transparency \(chunk tRNS\) of 1 bytes"),
        (png(GREYS, GREY, 8, before=wrong_checksum(b"tRNS", b"\0\0")), "checksum .*tRNS"),
        (SOUND[:HEAD] + struct.pack(">I", 2**31) + SOUND[HEAD + 4 :], "no chunk at byte 33"),
        (SOUND[:HEAD] + struct.pack(">I4s", 2**30, b"tEXt") + b"x", "cut short: .*pixels"),
        (SOUND[:20], "cut short: .*inside of the chunk IHDR"),
        (SOUND[:10], "cut short: .*before the chunk IEND"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)


def test_an_unknown_filter_is_damage() -> None:
    rows = b"".join(b"\x07" + bytes(3 * 5) for _ in range(4))
    header = struct.pack(">IIBBBBB", 5, 4, 8, RGB, 0, 0, 0)
    data = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    with pytest.raises(ImageError, match="is damaged"):
        load_image(data + chunk(b"IEND", b""))


def test_floods_of_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvlm.runtime.image.png_chunks._MAX_CHUNKS", 50)
    data = png(random_samples(RGB, 8), RGB, 8, before=chunk(b"abCd", b"") * 60)
    with pytest.raises(ImageError, match="over 50 chunks"):
        load_image(data)
