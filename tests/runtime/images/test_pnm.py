"""PBM, PGM, PPM, PAM and PFM: every maximum, plain and binary, and damage."""

import cv2
import numpy as np
import pytest

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.oracle import by_opencv, largest_difference, on_white, ours

WIDTH, HEIGHT = 13, 7
MAXIMA = [1, 2, 15, 100, 254, 255, 256, 1023, 4095, 65534, 65535]


def samples_of(white: int, channels: int) -> np.ndarray:
    return np.random.default_rng(white).integers(0, white + 1, (HEIGHT, WIDTH, channels))


def binary(samples: np.ndarray, white: int) -> bytes:
    return samples.astype("u1" if white < 256 else ">u2").tobytes()


def scaled(samples: np.ndarray, white: int) -> np.ndarray:
    return np.floor(samples * 255 / white + 0.5).astype(int)


@pytest.mark.parametrize("white", MAXIMA)
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_and_binary(channels: int, white: int) -> None:
    samples = samples_of(white, channels)
    expected = scaled(samples, white) + np.zeros(3, int)
    kind = {1: (b"P2", b"P5"), 3: (b"P3", b"P6")}[channels]
    header = b"\n# a comment\n%d %d # another\n%d\n" % (WIDTH, HEIGHT, white)
    digits = b" ".join(b"%d" % value for value in samples.reshape(-1))
    plain = kind[0] + header + b"# pixels\n" + digits
    for data in (plain, kind[1] + header + binary(samples, white)):
        np.testing.assert_array_equal(ours(data), expected)
    if white in (255, 65535):  # OpenCV does not scale the others.
        read = by_opencv(kind[1] + header + binary(samples, white))
        assert largest_difference(read, ours(plain)) == 0


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16])
def test_bitmaps(width: int) -> None:
    bits = np.random.default_rng(width).integers(0, 2, (HEIGHT, width))
    header = b"%d %d\n" % (width, HEIGHT)
    packed = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
    digits = b"".join(b"%d" % bit for bit in bits.reshape(-1))
    for data in (
        b"P4 " + header + packed,
        b"P1 " + header + digits,
        b"P1 " + header + digits + b"\n",
    ):
        np.testing.assert_array_equal(ours(data)[..., 0], np.where(bits, 0, 255))
        np.testing.assert_array_equal(by_opencv(data), ours(data))


PAM_KINDS = [
    (1, b"BLACKANDWHITE", 1), (2, b"BLACKANDWHITE_ALPHA", 1), (1, b"GRAYSCALE", 255),
    (2, b"GRAYSCALE_ALPHA", 255), (3, b"RGB", 255), (4, b"RGB_ALPHA", 255), (3, b"RGB", 65535),
    (4, b"RGB_ALPHA", 65535), (4, b"", 100),
]  # fmt: skip


@pytest.mark.parametrize(("channels", "kind", "white"), PAM_KINDS)
def test_pam(channels: int, kind: bytes, white: int) -> None:
    samples = samples_of(white, channels)
    header = b"P7\n# x\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL %d\n" % (
        WIDTH,
        HEIGHT,
        channels,
        white,
    )
    header += b"TUPLTYPE %s\nENDHDR\n" % kind if kind else b"ENDHDR\n"
    values = scaled(samples, white)
    colours = values[..., : 3 if channels > 2 else 1] + np.zeros(3, int)
    expected = on_white(colours, values[..., -1]) if channels in (2, 4) else colours
    np.testing.assert_allclose(ours(header + binary(samples, white)), expected, atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm(channels: int, order: str) -> None:
    samples = np.random.default_rng(0).random((HEIGHT, WIDTH, channels), np.float32)
    magic = b"Pf" if channels == 1 else b"PF"
    header = magic + b"\n%d %d\n%s\n" % (WIDTH, HEIGHT, b"-1.0" if order == "<" else b"1.0")
    data = header + samples[::-1].astype(order + "f4").tobytes()
    np.testing.assert_array_equal(ours(data), np.rint(samples * 255).astype(int) + np.zeros(3, int))
    floats = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    floats = floats.reshape(HEIGHT, WIDTH, channels)[..., ::-1]
    np.testing.assert_array_equal(floats, samples)


def test_a_second_image_is_ignored() -> None:
    one = b"P5 2 1 255\n\x00\xff"
    assert ours(one + one)[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P5 2 2 255\nabc", "cut short: .*3 of 4 bytes"),
        (b"P4 9 2\nabc", "cut short: .*3 of 4 bytes"),
        (b"P2 2 2 255\n1 2 3", "cut short: .*3 of 4 samples"),
        (b"P1 2 2 111", "cut short: .*3 of 4 samples"),
        (b"P5 2 ", "cut short: .*inside of its header"),
        (b"P5 2 2", "cut short: .*inside of its header"),
        (b"P7\nWIDTH 2\n", "cut short: .*end of the header"),
        (b"Pf 2 2 -1.0\nabc", "cut short: .*3 of 16 bytes"),
        (b"P2 2 2 255\n1 2 3 x", "damaged: .*'x' among the pixels"),
        (b"P2 2 2 255\n1 2 3 -4", "damaged: .*'-' among the pixels"),
        (b"P2 1 1 255\n256", "damaged: .*a sample 256"),
        (b"P2 1 1 255\n99999999999999999999999999", "damaged: .*a sample"),
        (b"P1 1 1\n2", "damaged: .*a sample 2"),
        (b"P5 1 1 65536\nab", "damaged: .*'65536'"),
        (b"P5 0 1 255\nab", "damaged: .*'0'"),
        (b"P5 -1 1 255\nab", "damaged: .*'-1'"),
        (b"P5 " + b"1" * 50 + b" 1 255\nab", "damaged"),
        (b"P5 50000 50000 255\nab", "too many pixels"),
        (b"Pf 50000 50000 1\nab", "too many pixels"),
        (b"Pf 1 1 nan\nabcd", "damaged: .*the scale"),
        (b"Pf 1 1 0\nabcd", "damaged: .*the scale"),
        (b"Pf 1 1 1\n\x7f\xc0\0\0", "kind that is not read: .*no finite value"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\nTUPLTYPE CMYK\nENDHDR\nabcd", "CMYK"),
        (b"P7\nWIDTH 1\nDEPTH 1\nMAXVAL 255\nENDHDR\nabcd", "damaged: .*in the header"),
    ],
)  # fmt: skip
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)
