"""Every kind of file with random damage: an image or an ImageError, and little memory."""

import io
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import ImageLimits, load_image
from tests.runtime.images import bmp_files, gif_files, png_files, tiff_files

LIMITS = ImageLimits(max_pixels=1_000_000)
RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (9, 11, 3), dtype=np.uint8)
GREY, INDEXES = RGB[..., :1], RGB[..., 0] % 16
PALETTE = RANDOM.integers(0, 256, (16, 3), dtype=np.uint8)


def by_pillow(kind: str, mode: str = "RGB", **options: object) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    buffer = io.BytesIO()
    if kind in ("JPEG", "WEBP", "PNG"):
        options["exif"] = tags
    Image.fromarray(RGB).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    return by_pillow(kind, save_all=True, append_images=[Image.new("RGB", (11, 9))])


FILES: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: by_pillow("PNG"),
    "PNG, 16 bits, transparent": lambda: png_files.png(
        RGB.astype(int) * 257, 2, 16, transparency=b"abcdef", interlaced=True
    ),
    "PNG, palette": lambda: png_files.png(
        INDEXES[..., None], 3, 4, palette=PALETTE.tobytes(), transparency=b"\0\x80"
    ),
    "APNG": lambda: animated("PNG"),
    "JPEG": lambda: by_pillow("JPEG"),
    "JPEG, progressive": lambda: by_pillow("JPEG", progressive=True),
    "JPEG, CMYK": lambda: by_pillow("JPEG", "CMYK"),
    "WebP": lambda: by_pillow("WEBP"),
    "WebP, lossless with alpha": lambda: by_pillow("WEBP", "RGBA", lossless=True),
    "WebP, animated": lambda: animated("WEBP"),
    "GIF": lambda: gif_files.gif(
        gif_files.frame(INDEXES, at=(3, 2), transparent=4), (20, 20), colours=PALETTE.tobytes()
    ),
    "GIF, animated": lambda: animated("GIF"),
    "BMP": lambda: by_pillow("BMP"),
    "BMP, palette": lambda: bmp_files.bmp(
        bmp_files.packed(INDEXES, 4), 11, 4, palette=bmp_files.bgrx(PALETTE)
    ),
    "BMP, runs": lambda: bmp_files.bmp(
        [b"\x05\1\0\5abcde\0\0\0\0\2\1\1\7\2\0\1"], 11, 8, compression=bmp_files.RLE8,
        palette=bmp_files.bgrx(PALETTE), height=9, colours=16,
    ),
    "BMP, masks": lambda: bmp_files.bmp(
        [row.tobytes() for row in RANDOM.integers(0, 256, (9, 44), dtype=np.uint8)], 11, 32,
        compression=bmp_files.MASKS, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), header=124,
    ),
    "TIFF": lambda: tiff_files.tiff(RGB, 2, 8, rows_per_strip=4),
    "TIFF, big-endian tiles": lambda: tiff_files.tiff(
        RGB, 2, 8, order=">", tile=16, compression=8, predictor=True
    ),
    "TIFF, deep grey": lambda: tiff_files.tiff(GREY.astype(np.uint16), 0, 16, order=">"),
    "BigTIFF": lambda: tiff_files.tiff(RGB, 2, 8, big=True, planar=True),
    "TIFF, LZW": lambda: by_pillow("TIFF", compression="tiff_lzw"),
    "TIFF, fax": lambda: by_pillow("TIFF", "1", compression="group4"),
    "TIFF, JPEG": lambda: by_pillow("TIFF", compression="jpeg"),
    "PPM": lambda: b"P6 11 9 255\n" + RGB.tobytes(),
    "PGM, plain": lambda: b"P2 3 2 300 # x\n1 2 3\n4 300 0",
    "PBM": lambda: b"P4 11 9\n" + bytes(18),
    "PAM": lambda: b"P7\nWIDTH 3\nHEIGHT 2\nDEPTH 2\nMAXVAL 9\nENDHDR\n" + b"\0\1\2\3\4\5" * 2,
    "PFM": lambda: b"PF 2 1 -1\n" + np.arange(6, dtype="<f4").tobytes(),
}  # fmt: skip


def damaged(data: bytes, random_: random.Random) -> bytes:
    """Return the file with a few bytes changed, or a piece cut out, put in or cut off."""
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 8))):
        # Headers matter most.
        span = len(changed) if random_.random() < 0.6 else min(64, len(changed))
        at = random_.randrange(max(span, 1))
        way = random_.random()
        if way < 0.6:
            changed[at : at + 1] = bytes(
                [random_.choice((0, 1, 127, 128, 255, random_.randrange(256)))]
            )
        elif way < 0.75:
            changed[at : at + random_.randrange(1, 9)] = b""
        elif way < 0.9:
            changed[at:at] = random_.randbytes(random_.randrange(1, 9))
        else:
            del changed[at:]
    return bytes(changed)


def with_right_checksums(data: bytes) -> bytes:
    """Return a PNG whose damage is not noticed by its checksums."""
    changed, position = bytearray(data), 8
    while position + 12 <= len(changed):
        length = int.from_bytes(changed[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(changed)


def rounds() -> int:
    """Rounds of each file; more by an environment variable, for a longer search."""
    return int(os.environ.get("MVLM_FUZZ_ROUNDS", "150"))


@pytest.mark.parametrize("kind", FILES)
def test_damage_gives_an_image_or_an_image_error(kind: str) -> None:
    sound = FILES[kind]()
    assert load_image(sound, limits=LIMITS).mode == "RGB"
    random_ = random.Random(kind)
    for number in range(rounds()):
        data = damaged(sound, random_)
        if kind.startswith("PNG") and number % 2:
            data = with_right_checksums(data)
        try:
            image = load_image(data, limits=LIMITS)
        except ImageError:
            continue
        assert image.mode == "RGB"
        assert image.width * image.height <= LIMITS.max_pixels


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_bombs_take_little_memory(tmp_path: Path) -> None:
    zeros = zlib.compress(bytes(150_000_000), 9)
    header = bytes([0, 0, 0, 9, 0, 0, 0, 9, 8, 2, 0, 0, 0])
    bombs = {
        "pixels": png_files.SIGNATURE + png_files.chunk(b"IHDR", header)
        + png_files.chunk(b"IDAT", zeros) + png_files.chunk(b"IEND", b""),
        "text": png_files.png(RGB, 2, 8, before=png_files.chunk(b"zTXt", b"x\0\0" + zeros)),
        "profile": png_files.png(RGB, 2, 8, before=png_files.chunk(b"iCCP", b"x\0\0" + zeros)),
        "strips": tiff_files.tiff(RGB, 2, 8, tags={
            # A colour map that claims to be of 2 GB.
            320: (tiff_files.SHORT, (0,)), 279: (tiff_files.LONG, (2**31,)),
        }),
        "plain": b"P2 9999 9999 255\n" + b"1 " * 1000,
    }  # fmt: skip
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mvlm.runtime.errors import ImageError\n"
        "from mvlm.runtime.image import load_image\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        load_image(path)\n"
        "    except ImageError:\n"
        "        pass\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 150_000  # KiB, of which the interpreter and its modules take half
