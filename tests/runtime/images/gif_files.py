"""GIF files made of known palette indexes, byte by byte."""

import struct

import numpy as np
import numpy.typing as npt

Indexes = npt.NDArray[np.integer]


def gif(
    frames: bytes, size: tuple[int, int], *, colours: bytes = b"", before: bytes = b"", end: int = 1
) -> bytes:
    """Return a GIF: `frames` on a canvas of `size`, and `end` times its last byte."""
    flags = 0x80 | _table_bits(colours) - 1 if colours else 0
    header = b"GIF89a" + struct.pack("<HHBBB", *size, flags, 0, 0)
    return header + _padded(colours) + before + frames + b";" * end


def frame(
    indexes: Indexes,
    *,
    at: tuple[int, int] = (0, 0),
    colours: bytes = b"",
    transparent: int | None = None,
    interlaced: bool = False,
) -> bytes:
    """Return a frame of (height, width) palette indexes."""
    height, width = indexes.shape
    flags = (0x80 | _table_bits(colours) - 1 if colours else 0) | (0x40 if interlaced else 0)
    control = b"" if transparent is None else extension(0xF9, bytes([1, 0, 0, transparent]))
    rows = [range(0, height, 8), range(4, height, 8), range(2, height, 4), range(1, height, 2)]
    order = [row for some in rows for row in some] if interlaced else list(range(height))
    header = b"," + struct.pack("<HHHHB", *at, width, height, flags)
    return control + header + _padded(colours) + compressed(indexes[order])


def extension(label: int, *blocks: bytes) -> bytes:
    chain = b"".join(bytes([len(block)]) + block for block in blocks)
    return bytes([0x21, label]) + chain + b"\0"


def compressed(indexes: Indexes) -> bytes:
    """Return LZW's codes of 8-bit literals, with so many clear codes that all have 9 bits."""
    clear, stop = 256, 257
    codes: list[int] = []
    for number, index in enumerate(indexes.reshape(-1)):
        if number % 200 == 0:
            codes.append(clear)
        codes.append(int(index))
    bits = np.array([[code >> bit & 1 for bit in range(9)] for code in [*codes, stop]])
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    blocks = [packed[start : start + 255] for start in range(0, len(packed), 255)]
    return b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _table_bits(colours: bytes) -> int:
    return max((len(colours) // 3 - 1).bit_length(), 1)


def _padded(colours: bytes) -> bytes:
    return colours.ljust(3 << _table_bits(colours), b"\0") if colours else b""
