"""JPEG: colour spaces, encodings, application segments in any state, orientation, and damage."""

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.oracle import by_opencv, largest_difference, ours

WIDTH, HEIGHT = 53, 37


def scene() -> Image.Image:
    """Smooth colours: what a JPEG of high quality keeps."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(6))


def jpeg(image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or scene()).save(buffer, "JPEG", **{"quality": 97, "subsampling": 0} | options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def inserted(part: bytes, data: bytes | None = None) -> bytes:
    """Return a JPEG with `part` behind its first marker."""
    data = data or jpeg()
    return data[:2] + part + data[2:]


def without(data: bytes, marker: int) -> bytes:
    start = data.index(bytes([0xFF, marker]))
    (length,) = struct.unpack_from(">H", data, start + 2)
    return data[:start] + data[start + 2 + length :]


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_encodings(mode: str, progressive: bool, subsampling: int) -> None:
    data = jpeg(scene().convert(mode), progressive=progressive, subsampling=subsampling)
    # Both use libjpeg-turbo: equal apart from how subsampled colours are interpolated.
    assert largest_difference(ours(data), by_opencv(data)) <= 1
    original = np.asarray(scene().convert(mode).convert("RGB"))
    assert np.abs(ours(data) - original.astype(float)).mean() < 3


def test_other_options_of_encoders() -> None:
    scaled = cv2.cvtColor(np.asarray(scene()), cv2.COLOR_RGB2BGR)
    for options in (
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
        [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        [cv2.IMWRITE_JPEG_QUALITY, 5],
    ):
        data = cv2.imencode(".jpg", scaled, options)[1].tobytes()
        assert largest_difference(ours(data), by_opencv(data)) <= 1


CMYK = np.dstack([
    np.tile(np.linspace(0, 255, WIDTH, dtype=np.uint8), (HEIGHT, 1)),
    np.tile(np.linspace(255, 0, HEIGHT, dtype=np.uint8)[:, None], (1, WIDTH)),
    np.full((HEIGHT, WIDTH), 90, np.uint8),
    np.full((HEIGHT, WIDTH), 40, np.uint8),
])  # fmt: skip


@pytest.mark.parametrize("marker", ["Adobe", "none"])
def test_cmyk_is_inverted_as_all_programs_write_it(marker: str) -> None:
    data = jpeg(Image.fromarray(CMYK, "CMYK"))
    assert b"Adobe" in data
    data = data if marker == "Adobe" else without(data, 0xEE)
    light = 255 - CMYK.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    assert np.abs(ours(data) - expected).max() <= 6  # of the quality
    assert largest_difference(ours(data), by_opencv(data, with_alpha=False)) <= 2


def test_ycck() -> None:
    # The same samples, declared to be YCCK: luminance and colour differences in place of CMY.
    plain = jpeg(Image.fromarray(CMYK, "CMYK"))
    start = plain.index(b"Adobe")
    data = plain[: start + 11] + b"\2" + plain[start + 12 :]
    assert largest_difference(ours(data), by_opencv(data, with_alpha=False)) <= 2
    assert largest_difference(ours(data), ours(plain)) > 30


def test_rgb_without_a_transform() -> None:
    buffer = io.BytesIO()
    scene().save(buffer, "JPEG", quality=97, keep_rgb=True)
    data = buffer.getvalue()
    for kind in (data, inserted(segment(0xEE, b"Adobe\0d\0\0\0\0\0"), data)):
        assert np.abs(ours(kind) - np.asarray(scene()).astype(float)).max() <= 12
        assert largest_difference(ours(kind), by_opencv(kind)) <= 1


SEGMENTS = {
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "an empty application segment": segment(0xE0, b""),
    "JFXX of garbage": segment(0xE0, b"JFXX\0\x10garbage"),
    "EXIF of garbage": segment(0xE1, b"Exif\0\0garbage"),
    "empty EXIF": segment(0xE1, b"Exif\0\0"),
    "EXIF with values behind its end": segment(
        0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x0e\1\2\0\xff\xff\xff\xff\xff\xff\xff\xff"
    ),
    "XMP of garbage": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<garbage"),
    "a profile of garbage": segment(0xE2, b"ICC_PROFILE\0\1\1garbage"),
    "a profile that lacks a part": segment(0xE2, b"ICC_PROFILE\0\2\7part"),
    "a short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "a profile of 16 MB": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65000)) * 255,
    "several images, of garbage": segment(0xE2, b"MPF\0garbage"),
    "several images, none": segment(0xE2, b"MPF\0"),
    "several images, behind the end": segment(
        0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\2\0\7\xff\xff\xff\xff\xff\xff\xff\xff"
    ),
    "Photoshop of garbage": segment(0xED, b"Photoshop 3.0\0garbage"),
    "a short Photoshop": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a comment": segment(0xFE, b"text"),
    "a comment of no encoding": segment(0xFE, b"\xff\xfe\0"),
    "an unknown segment": segment(0xEB, b"whatever"),
    "bytes between two segments": b"\0\1\2\3",
    "a segment of 0 bytes": b"\xff\xe5\0\0",
    "a comment of 1 byte": b"\xff\xfe\0\1",
    "bytes to fill": b"\xff\xff\xff",
}


@pytest.mark.parametrize("kind", SEGMENTS)
def test_metadata_costs_no_intact_image(kind: str) -> None:
    data = inserted(SEGMENTS[kind])
    np.testing.assert_array_equal(ours(data), ours(jpeg()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_as_opencv_turns_it(orientation: int) -> None:
    data = jpeg(exif=exif(orientation))
    turned = by_opencv(data, with_alpha=False)
    assert turned.shape[0] == (HEIGHT if orientation < 5 else WIDTH)
    assert largest_difference(ours(data), turned) <= 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_are_none(orientation: int) -> None:
    np.testing.assert_array_equal(ours(jpeg(exif=exif(orientation))), ours(jpeg()))


def test_nothing_behind_the_end_matters() -> None:
    for after in (b"garbage", jpeg(scene().rotate(90)), bytes(100_000)):
        np.testing.assert_array_equal(ours(jpeg() + after), ours(jpeg()))


def with_frame(*, precision: int = 8, height: int = HEIGHT, marker: int = 0xC0) -> bytes:
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0")
    data[start + 1] = marker
    struct.pack_into(">BH", data, start + 4, precision, height)
    return bytes(data)


def frame_of(components: int) -> bytes:
    body = struct.pack(">BHHB", 8, HEIGHT, WIDTH, components) + b"\1\x11\0" * components
    return b"\xff\xd8" + segment(0xC0, body) + segment(0xDA, bytes(6))


def test_every_cut_is_named() -> None:
    data = jpeg()
    for length in range(2, len(data) - 50, 97):
        with pytest.raises(ImageError, match="is cut short"):
            load_image(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_frame(precision=12), "kind that is not read: .*12 bits"),
        (with_frame(marker=0xC3), "kind that is not read: .*lossless"),
        (with_frame(marker=0xC5), "kind that is not read: .*hierarchical"),
        (with_frame(height=0), "kind that is not read: .*height stands behind"),
        (with_frame(height=60_000), "too many pixels"),
        (frame_of(2), "kind that is not read: .*2 components"),
        (frame_of(0), "kind that is not read: .*0 components"),
        (without(jpeg(), 0xC0), "damaged: .*without a frame header"),
        (inserted(segment(0xC0, bytes(5))), "damaged: .*two frame headers"),
        (inserted(b"\xff\xd9"), "damaged: .*an end in front of the pixels"),
        (inserted(b"\xff\xdb\0\1"), "damaged: .*a segment DB of 1 bytes"),
        (without(jpeg(), 0xDB), "is damaged"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)
