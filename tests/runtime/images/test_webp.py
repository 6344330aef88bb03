"""WebP: lossy and lossless, alpha, animations, metadata in any state, orientation, and damage."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.oracle import by_opencv, largest_difference, on_white, ours

WIDTH, HEIGHT = 21, 15
RGBA = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)


def webp(pixels: np.ndarray = RGBA[..., :3], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **{"lossless": True, "exact": True} | options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def container(*chunks: bytes, length: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if length is None else length) + body


def extended(flags: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def pixels_of(data: bytes) -> bytes:
    """Return the only chunk of a simple file."""
    assert data[12:16] in (b"VP8 ", b"VP8L")
    return data[12:]


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_pixels(alpha: bool, lossless: bool) -> None:
    pixels = RGBA if alpha else RGBA[..., :3]
    data = webp(pixels, lossless=lossless)
    assert largest_difference(ours(data), by_opencv(data)) <= int(alpha)  # of rounding
    if lossless:
        expected = on_white(RGBA[..., :3], RGBA[..., 3]) if alpha else pixels
        np.testing.assert_allclose(ours(data), expected, atol=int(alpha))


ICC, EXIF, XMP = 0x20, 0x08, 0x04
METADATA = {
    "nothing": (0, b"", b""),
    "a profile of garbage": (ICC, chunk(b"ICCP", b"garbage"), b""),
    "an empty profile": (ICC, chunk(b"ICCP", b""), b""),
    "a profile of 3 MB": (ICC, chunk(b"ICCP", bytes(3_000_001)), b""),
    "a profile that is declared and not there": (ICC, b"", b""),
    "a profile that is not declared": (0, chunk(b"ICCP", b"odd"), b""),
    "EXIF of garbage": (EXIF, b"", chunk(b"EXIF", b"garbage")),
    "empty EXIF": (EXIF, b"", chunk(b"EXIF", b"")),
    "EXIF that runs past the end": (EXIF, b"", b"EXIF\xff\xff\xff\x7fgarbage"),
    "EXIF that is declared and not there": (EXIF, b"", b""),
    "EXIF that is not declared": (
        0,
        b"",
        chunk(b"EXIF", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6"),
    ),
    "XMP of garbage": (XMP, b"", chunk(b"XMP ", b"<garbage")),
    "XMP that is cut short": (XMP, b"", b"XMP \x99\0\0\0<x"),
    "a chunk that nobody knows": (0, chunk(b"abcd", b"odd"), chunk(b"abcd", b"odd")),
    "bytes behind the end": (0, b"", b"\1\2\3"),
    "reserved flags": (0xC1, b"", b""),
}


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("lossless", [False, True])
def test_metadata_costs_no_intact_image(kind: str, lossless: bool) -> None:
    flags, before, after = METADATA[kind]
    simple = webp(lossless=lossless)
    data = container(extended(flags), before, pixels_of(simple), after)
    np.testing.assert_array_equal(ours(data), ours(simple))


def test_nothing_behind_a_simple_image_matters() -> None:
    data = container(pixels_of(webp()), chunk(b"EXIF", b"garbage"), b"\1\2\3", length=12)
    np.testing.assert_array_equal(ours(data), RGBA[..., :3])


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_as_opencv_turns_it(orientation: int, prefix: bytes) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    body = tags.tobytes().removeprefix(b"Exif\0\0")
    data = container(extended(EXIF), pixels_of(webp()), chunk(b"EXIF", prefix + body))
    twin = container(extended(EXIF), pixels_of(webp()), chunk(b"EXIF", body))
    np.testing.assert_array_equal(ours(data), by_opencv(twin, with_alpha=False))


ANIMATION, ALPHA = 0x02, 0x10


def frame(pixels: bytes, x: int = 0, y: int = 0) -> bytes:
    place = (x // 2).to_bytes(3, "little") + (y // 2).to_bytes(3, "little")
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    return chunk(b"ANMF", place + size + b"\x64\0\0\0" + pixels)


@pytest.mark.parametrize("at", [(0, 0), (6, 4)])
def test_the_first_frame_on_its_canvas(at: tuple[int, int]) -> None:
    first, second = pixels_of(webp()), pixels_of(webp(255 - RGBA[..., :3]))
    data = container(
        extended(ANIMATION | ALPHA, 40, 30),
        chunk(b"ANIM", b"\0\0\0\xff\0\0"),  # The background, black, is ignored as in browsers.
        frame(first, *at),
        frame(second),
    )
    expected = np.full((30, 40, 3), 255)
    expected[at[1] : at[1] + HEIGHT, at[0] : at[0] + WIDTH] = RGBA[..., :3]
    np.testing.assert_array_equal(ours(data), expected)
    # What follows the first frame may be missing.
    np.testing.assert_array_equal(ours(data[:-10]), expected)


def test_every_cut_is_named() -> None:
    for data in (webp(), webp(lossless=False), webp(RGBA, lossless=False)):
        for length in range(12, len(data), 7):
            with pytest.raises(ImageError, match="is cut short"):
                load_image(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (container(chunk(b"VP8X", b"abc"), pixels_of(webp())), "damaged: .*VP8X of 3 bytes"),
        (container(extended(0, 16_000, 16_000), pixels_of(webp())), "too many pixels"),
        (container(extended(0, 99, 99), pixels_of(webp())), "is damaged"),
        (container(chunk(b"VP8L", b"garbage")), "is damaged"),
        (container(chunk(b"VP8 ", bytes(50))), "is damaged"),
        (container(chunk(b"abcd", b"garbage")), "damaged: .*no image"),
        (webp()[:14], "cut short: .*in front of the pixels"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)
