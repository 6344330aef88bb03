"""Images: parity with CLIPImageProcessor, every kind of image, every kind of bad file."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.image_utils import ChannelDimension

from mvlm.runtime.errors import ConfigError, ImageError
from mvlm.runtime.image import ImageLimits, ImageSpec, load_image, preprocess

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
RED, GREEN = (255, 0, 0), (0, 128, 0)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(data: bytes, **options: Any) -> npt.NDArray[np.uint8]:
    image = load_image(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def official(image: Image.Image, size: int, *, pad: bool) -> npt.NDArray[np.float32]:
    """What MobileVLM computes: its padding in our words, then CLIPImageProcessor."""
    processor = CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    if pad:
        side = max(image.size)
        colour = tuple(int(mean * 255) for mean in MEAN)
        square = Image.new("RGB", (side, side), colour)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    # Named, because the processor takes a height of 1 or 3 for the channels.
    result = processor(image, return_tensors="np", input_data_format=ChannelDimension.LAST)
    pixel_values: npt.NDArray[np.float32] = result["pixel_values"]
    return pixel_values


SIZES = [
    (1, 1), (2, 1), (1, 3), (336, 336), (337, 335), (640, 480), (480, 641), (61, 97), (1000, 999),
    (2000, 7), (7, 2000), (1, 900), (900, 1), (3, 3), (2500, 1200), (1200, 2500),
]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "aspect"),
    [(width, height, "pad") for width, height in SIZES]
    + [(w, h, "crop") for w, h in SIZES if max(w, h) <= 100 * min(w, h)],
)
def test_preprocess_equals_the_official_one_bit_by_bit(
    width: int, height: int, aspect: Literal["pad", "crop"]
) -> None:
    size = 336 if max(width, height) < 1500 else 56
    image = noise(width, height, seed=width * height)
    ours = preprocess(image, ImageSpec(size, MEAN, STD, aspect))
    assert ours.shape == (1, 3, size, size)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    np.testing.assert_array_equal(ours, official(image, size, pad=aspect == "pad"))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(1, 100),
    pad=st.booleans(),
    seed=st.integers(0, 99),
)
def test_preprocess_equals_the_official_one_at_any_size(
    width: int, height: int, size: int, pad: bool, seed: int
) -> None:
    if not pad and max(width, height) > 100 * min(width, height):
        width = height
    image = noise(width, height, seed)
    ours = preprocess(image, ImageSpec(size, MEAN, STD, "pad" if pad else "crop"))
    np.testing.assert_array_equal(ours, official(image, size, pad=pad))


def test_tall_images_are_padded_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvlm.runtime.image.preprocessing._BAND_PIXELS", 1000)
    image = noise(40, 333)
    ours = preprocess(image, ImageSpec(48, MEAN, STD))
    np.testing.assert_array_equal(ours, official(image, 48, pad=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_long_images_need_little_memory() -> None:
    script = (
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from mvlm.runtime.image import ImageSpec, preprocess\n"
        "spec = ImageSpec(336, (0.5,) * 3, (0.5,) * 3)\n"
        "for size in [(30000, 10), (10, 12000)]:\n"
        "    preprocess(Image.new('RGB', size), spec)\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # In KiB. The square canvases would take 3.6 GB and 576 MB.
    assert int(run.stdout) < 200_000


def test_long_images_are_not_cropped() -> None:
    with pytest.raises(ImageError, match="aspect ratio of at most 100:1, found 1010x10"):
        preprocess(Image.new("RGB", (1010, 10)), ImageSpec(32, MEAN, STD, "crop"))


def test_spec_survives_json() -> None:
    spec = ImageSpec(336, MEAN, STD, "crop")
    assert ImageSpec.from_json(spec.to_json()) == spec
    assert spec.background == (122, 116, 104)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "image size"),
        ({"size": True}, "image size"),
        ({"size": 10**9}, "image size"),
        ({"mean": [0.5, 0.5]}, "image_mean"),
        ({"mean": [0.5, 0.5, float("nan")]}, "image_mean"),
        ({"mean": "abc"}, "image_mean"),
        ({"std": [0.5, 0.5, 0.0]}, "image_std"),
        ({"std": [0.5, 0.5, None]}, "image_std"),
        ({"aspect": "stretch"}, "pad or crop"),
        ({"extra": 1}, "the keys"),
    ],
)
def test_wrong_specs_are_refused(change: dict[str, object], message: str) -> None:
    good = ImageSpec(336, MEAN, STD).to_json()
    with pytest.raises(ConfigError, match=message):
        ImageSpec.from_json(good | change)


def test_spec_that_is_no_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="found list"):
        ImageSpec.from_json([1, 2])


# What a viewer shows, as stored by a camera that was held in each of the eight ways.
STORED: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_upright(orientation: int, kind: str) -> None:
    upright = np.asarray(noise(5, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif, **lossless)
    np.testing.assert_array_equal(pixels_of(data), upright)


def test_jpeg_photos_are_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(noise(40, 20), "JPEG", exif=exif)).size == (20, 40)


def test_damaged_exif_costs_only_the_orientation() -> None:
    data = encoded(noise(40, 20), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert load_image(data).size == (40, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "PA", "RGBA"])
def test_opaque_images_equal_the_official_conversion(mode: str) -> None:
    image = noise(9, 7).convert("L" if mode in ("1", "LA") else "RGB").convert(mode)
    data = encoded(image, "TIFF")
    with Image.open(io.BytesIO(data)) as reopened:
        expected = np.asarray(reopened.convert("RGB"))
    np.testing.assert_array_equal(pixels_of(data), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats_are_read_from_bytes_and_from_files(kind: str, tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (8, 6), RED), kind)
    path = tmp_path / "image.any"
    path.write_bytes(data)
    from_bytes = pixels_of(data)
    assert from_bytes.shape == (6, 8, 3)
    assert np.abs(from_bytes.astype(int) - RED).max() <= 4
    for source in (path, str(path)):
        np.testing.assert_array_equal(np.asarray(load_image(source)), from_bytes)


def test_phone_files_of_several_images_show_the_first() -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), GREEN)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(pixels_of(data).astype(int) - RED).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_show_the_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), GREEN)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **lossless)
    np.testing.assert_array_equal(pixels_of(data), np.asarray(first))


def test_cmyk_jpeg_is_not_inverted() -> None:
    # Pillow writes the inverted values and the marker that Adobe's programs write.
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(pixels_of(data).astype(int) - RED).max() <= 4


def test_transparent_pixels_show_white() -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    data = encoded(image)
    assert pixels_of(data)[0].tolist() == [[255, 255, 255], [255, 0, 0], [127, 127, 127]]
    assert pixels_of(data, background=(0, 0, 255))[0, 0].tolist() == [0, 0, 255]
    with Image.open(io.BytesIO(data)) as reopened:
        official_pixels = np.asarray(reopened.convert("RGB"))
    np.testing.assert_array_equal(pixels_of(data, background=None), official_pixels)


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [
        (0, [[255, 255, 255], [0, 128, 0]]),
        (b"\x00\xff", [[255, 255, 255], [0, 128, 0]]),
        (b"\xff\x80", [[255, 0, 0], [127, 191, 127]]),
    ],
)
def test_transparent_palette_entries_show_white(
    transparency: int | bytes, expected: list[list[int]]
) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    data = encoded(image, transparency=transparency)
    assert pixels_of(data)[0].tolist() == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "LA"])
def test_transparent_grey_and_colour_keys_show_white(mode: str) -> None:
    if mode == "LA":
        data = encoded(Image.new("LA", (2, 2), (0, 0)))
    else:
        data = encoded(Image.new(mode, (2, 2)), transparency=0 if mode == "L" else (0, 0, 0))
    assert pixels_of(data).min() == 255


SIXTEEN_BITS = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], dtype=np.uint16)
EIGHT_BITS = [0, 0, 1, 1, 128, 254, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF", "PGM"])
def test_sixteen_bit_grey_is_scaled(kind: str) -> None:
    if kind == "PGM":
        data = b"P5 7 1 65535\n" + SIXTEEN_BITS.astype(">u2").tobytes()
    elif kind == "big-endian TIFF":
        image = Image.frombytes("I;16B", (7, 1), SIXTEEN_BITS.astype(">u2").tobytes())
        data = encoded(image, "TIFF")
    else:
        data = encoded(Image.fromarray(SIXTEEN_BITS), kind)
    np.testing.assert_array_equal(pixels_of(data)[0], np.array([EIGHT_BITS] * 3).T)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.0, 1.0], [0, 0, 255]),
        ([float("-inf"), float("inf"), 1.0], [0, 255, 255]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_float_grey_is_scaled(values: list[float], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert pixels_of(data)[0, :, 0].tolist() == expected


def test_32_bit_grey_is_scaled() -> None:
    data = encoded(Image.fromarray(np.array([[-(2**31), 0, 2**31 - 1]], dtype=np.int32)), "TIFF")
    assert pixels_of(data)[0, :, 0].tolist() == [0, 128, 255]


def test_float_grey_without_a_number_is_refused() -> None:
    data = encoded(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF")
    with pytest.raises(ImageError, match="no finite value"):
        load_image(data)


def test_one_pixel_is_an_image() -> None:
    image = load_image(encoded(Image.new("RGB", (1, 1), RED)))
    pixel_values = preprocess(image, ImageSpec(8, MEAN, STD))
    expected = (np.array([1, 0, 0]) - MEAN) / STD
    np.testing.assert_allclose(pixel_values, np.tile(expected[None, :, None, None], (8, 8)), 1e-5)


def test_empty_image_is_refused() -> None:
    with pytest.raises(ImageError, match="0x5"):
        preprocess(Image.new("RGB", (0, 5)), ImageSpec(8, MEAN, STD))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises `width` by `height` pixels and holds next to none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("width", "height"), [(12_000, 12_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (40_000, 1)]
)
def test_decompression_bombs_are_refused_before_decoding(width: int, height: int) -> None:
    with pytest.raises(ImageError, match="too many pixels"):
        load_image(png_header(width, height))


def test_limits_are_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encoded(noise(20, 10)))
    assert load_image(path, limits=ImageLimits(max_pixels=200)).size == (20, 10)
    with pytest.raises(ImageError, match=r"at most 199 pixels.*found 20x10"):
        load_image(path, limits=ImageLimits(max_pixels=199))
    with pytest.raises(ImageError, match="19 a side"):
        load_image(path, limits=ImageLimits(max_side=19))
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="at most 100 bytes"):
            load_image(source, limits=ImageLimits(max_bytes=100))
    with pytest.raises(ConfigError, match="max_side"):
        ImageLimits(max_side=0)


def test_warnings_of_pillow_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(15, 10))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(data).size == (15, 10)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am a text", "found text"),
        (EPS, "found PostScript"),
        (b"%PDF-1.7\n", "found a PDF document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "found SVG or XML"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "found HEIF or AVIF"),
        (b"\x80\x81\x82\x83", "found an unknown format"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"image.png .*{message}"):
        load_image(path)
    with pytest.raises(ImageError, match=message):
        load_image(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_images_are_refused(kind: str, share: float) -> None:
    data = encoded(noise(64, 64), kind)
    with pytest.raises(ImageError, match="is cut short"):
        load_image(data[: int(len(data) * share)])


SAMPLES = {
    kind: encoded(noise(12, 9), kind)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
}


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 2000),
)
def test_damaged_bytes_give_an_image_or_an_image_error(
    kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(SAMPLES[kind])
    for position, value in changes:
        data[position % len(data)] = value
    try:
        image = load_image(bytes(data[: max(len(data) - cut // 4, 0)]))
    except ImageError:
        return
    assert image.mode == "RGB"


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no file .*nowhere\.png"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="found a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot read"):
        load_image("a\0b.png")
    with pytest.raises(ImageError, match="cannot read"):
        load_image("a" * 5000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ImageError, match="device, pipe or socket"):
            load_image(path)


def test_threads_load_images_together() -> None:
    data = encoded(noise(64, 64))
    results: list[tuple[int, int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(load_image(data).size)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(64, 64)] * 8
