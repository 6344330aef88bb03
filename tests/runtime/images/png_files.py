"""PNG files made of known samples, byte by byte."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
PASSES = [
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
]  # fmt: skip

Samples = npt.NDArray[np.integer]


def random_samples(
    colour_type: int, depth: int, width: int = 13, height: int = 11, seed: int = 0
) -> Samples:
    """Return (height, width, channels) samples of all values."""
    shape = (height, width, CHANNELS[colour_type])
    return np.random.default_rng(seed).integers(0, 2**depth, shape)


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + body)
    end = struct.pack(">I", right if checksum is None else checksum)
    return struct.pack(">I", len(body)) + kind + body + end


def png(
    samples: Samples,
    colour_type: int,
    depth: int,
    *,
    palette: bytes = b"",
    transparency: bytes = b"",
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return a PNG of (height, width, channels) samples.

    Rows use all five filters by turns. `before` and `after` are chunks on each side of the pixels.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    passes = [samples]
    if interlaced:
        passes = [samples[y::down, x::across] for x, y, across, down in PASSES]
    rows = b"".join(_filtered(one, depth) for one in passes if one.size)
    body = before
    if palette:
        body += chunk(b"PLTE", palette)
    if transparency:
        body += chunk(b"tRNS", transparency)
    body += chunk(b"IDAT", zlib.compress(rows)) + after
    return SIGNATURE + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def _filtered(samples: Samples, depth: int) -> bytes:
    bytes_per_pixel = max(1, depth * samples.shape[2] // 8)
    result = b""
    before = None
    for number, row in enumerate(_packed_rows(samples, depth)):
        above = np.zeros_like(row) if before is None else before
        result += _filter(number % 5, row, above, bytes_per_pixel)
        before = row
    return result


def _packed_rows(samples: Samples, depth: int) -> list[npt.NDArray[np.uint8]]:
    if depth == 16:
        raw = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
        return list(raw)
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return list(np.packbits(bits.reshape(len(samples), -1), axis=1))


def _filter(
    kind: int, row: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8], step: int
) -> bytes:
    here, up = row.astype(int), above.astype(int)
    left = np.concatenate([np.zeros(step, int), here])[: len(here)]
    corner = np.concatenate([np.zeros(step, int), up])[: len(here)]
    guess = left + up - corner
    distances = np.abs(np.stack([guess - left, guess - up, guess - corner]))
    paeth = np.choose(distances.argmin(axis=0), [left, up, corner])
    predicted = [np.zeros_like(here), left, up, (left + up) // 2, paeth][kind]
    return bytes([kind]) + ((here - predicted) % 256).astype(np.uint8).tobytes()
