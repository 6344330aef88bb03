"""BMP files made of known pixels, byte by byte."""

import struct

import numpy as np
import numpy.typing as npt

RAW, RLE8, RLE4, MASKS, ALPHA_MASKS = 0, 1, 2, 3, 6


def bmp(
    rows: list[bytes],
    width: int,
    bits: int,
    *,
    compression: int = RAW,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    header: int = 40,
    top_down: bool = False,
    height: int | None = None,
    colours: int = 0,
) -> bytes:
    """Return a BMP.

    Args:
        rows: Encoded pixels of each row, from the top; padded to 4 bytes if they are not runs.
        width: In pixels.
        bits: Of a pixel.
        compression: One of the names above.
        palette: Blue, green, red and (without it in the header of 12 bytes) one unused byte each.
        masks: Of red, green, blue and perhaps alpha; in the header if it has room for them.
        header: Its bytes: 12, 40, 52, 56, 64, 108 or 124.
        top_down: The first row comes first.
        height: If it is not the number of `rows`.
        colours: Number of palette entries, 0 for all.
    """
    if compression not in (RLE8, RLE4):
        rows = [row + b"\0" * (-len(row) % 4) for row in rows]
    count = len(rows) if height is None else height
    pixels = b"".join(rows if top_down else rows[::-1])
    signed = -count if top_down else count
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, count, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", header, width, signed, 1, bits, compression, 0, 2835, 2835, colours, 0
        )
        mask_bytes = struct.pack(f"<{len(masks)}I", *masks)
        info += mask_bytes if header == 40 else mask_bytes.ljust(header - 40, b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels


def bgrx(colours: npt.NDArray[np.uint8]) -> bytes:
    """Return the palette of (entries, 3) red, green and blue."""
    return np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()


def packed(indexes: npt.NDArray[np.integer], bits: int) -> list[bytes]:
    """Return (height, width) indexes as rows of 1, 2, 4 or 8 bits a pixel."""
    unpacked = np.unpackbits(indexes.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return [row.tobytes() for row in np.packbits(unpacked.reshape(len(indexes), -1), axis=1)]


def masked(samples: npt.NDArray[np.integer], masks: tuple[int, ...], bits: int) -> list[bytes]:
    """Return (height, width, channels) samples, each as wide as its mask, as rows of pixels."""
    pixels = np.zeros(samples.shape[:2], np.uint64)
    for channel, mask in enumerate(masks):
        lowest = (mask & -mask).bit_length() - 1 if mask else 0
        if mask:
            pixels |= samples[..., channel].astype(np.uint64) << np.uint64(lowest)
    return [row.astype(f"<u{bits // 8}").tobytes() for row in pixels]
