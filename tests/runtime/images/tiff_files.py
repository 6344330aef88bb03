"""TIFF files made of known samples, byte by byte."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UNCOMPRESSED, DEFLATE, PACKBITS = 1, 8, 32773
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
BYTE, ASCII, SHORT, LONG, UNDEFINED, LONG8 = 1, 2, 3, 4, 7, 16
_CODES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", UNDEFINED: "B", LONG8: "Q"}

Samples = npt.NDArray[np.generic]
Tags = dict[int, tuple[int, tuple[int, ...]]]


def tiff(
    samples: Samples,
    photometric: int,
    bits: int,
    *,
    order: str = "<",
    big: bool = False,
    kind: int = UNSIGNED,
    compression: int = UNCOMPRESSED,
    rows_per_strip: int | None = None,
    tile: int | None = None,
    planar: bool = False,
    predictor: bool = False,
    reversed_bits: bool = False,
    extra: tuple[int, ...] = (),
    tags: Tags | None = None,
) -> bytes:
    """Return a TIFF of one page.

    Args:
        samples: (height, width, channels).
        photometric: What they mean.
        bits: Of each sample: 1, 2, 4, 8, 12, 16 or 32.
        order: ``<`` little-endian, ``>`` big-endian.
        big: A BigTIFF.
        kind: Unsigned, signed or float.
        compression: One of the names above.
        rows_per_strip: All by default.
        tile: Side of square tiles, instead of strips.
        planar: The channels apart from each other.
        predictor: Rows are differences.
        reversed_bits: The first pixel in the lowest bits (FillOrder 2).
        extra: What the channels behind the colours mean.
        tags: More tags by number, or others in place of the file's own: type and values.
    """
    height, width, channels = samples.shape
    planes = [samples[..., c : c + 1] for c in range(channels)] if planar else [samples]
    pieces = [piece for plane in planes for piece in _pieces(plane, rows_per_strip, tile)]
    if predictor:
        pieces = [_differences(piece) for piece in pieces]
    encoded = [_compressed(_packed(p, bits, order, reversed_bits), compression) for p in pieces]
    all_tags: Tags = {
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (bits,) * channels),
        259: (SHORT, (compression,)),
        262: (SHORT, (photometric,)),
        277: (SHORT, (channels,)),
        284: (SHORT, (2 if planar else 1,)),
        339: (SHORT, (kind,) * channels),
    }
    if reversed_bits:
        all_tags[266] = (SHORT, (2,))
    if predictor:
        all_tags[317] = (SHORT, (2,))
    if extra:
        all_tags[338] = (SHORT, extra)
    if tile:
        all_tags |= {322: (LONG, (tile,)), 323: (LONG, (tile,))}
    else:
        all_tags[278] = (LONG, (rows_per_strip or height,))
    return _file(encoded, all_tags, tags or {}, order, big, tiled=bool(tile))


def _pieces(plane: Samples, rows_per_strip: int | None, tile: int | None) -> list[Samples]:
    height, width, _ = plane.shape
    if not tile:
        rows = rows_per_strip or height
        return [plane[top : top + rows] for top in range(0, height, rows)]
    down, across = -height % tile, -width % tile
    whole = np.pad(plane, ((0, down), (0, across), (0, 0)))
    return [
        whole[top : top + tile, left : left + tile]
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]


def _differences(piece: Samples) -> Samples:
    return np.diff(piece, axis=1, prepend=np.zeros_like(piece[:, :1]))


def _packed(piece: Samples, bits: int, order: str, reversed_bits: bool) -> bytes:
    flat = piece.reshape(len(piece), -1)
    if bits in (8, 16, 32):
        return flat.astype(flat.dtype.newbyteorder(order)).tobytes()
    wide = flat.astype(">u2")[..., None].view(np.uint8)
    rows = np.unpackbits(wide, axis=-1)[..., 16 - bits :].reshape(len(piece), -1)
    return np.packbits(rows, axis=1, bitorder="little" if reversed_bits else "big").tobytes()


def _compressed(raw: bytes, compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(raw)
    if compression == PACKBITS:
        parts = [raw[start : start + 128] for start in range(0, len(raw), 128)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    return raw


def _file(
    pieces: list[bytes], own: Tags, others: Tags, order: str, big: bool, *, tiled: bool
) -> bytes:
    head, count, offset = (16, "Q", "Q") if big else (8, "H", "I")
    body = b""
    starts = []
    for piece in pieces:
        starts.append(head + len(body))
        body += piece + b"\0" * (len(piece) % 2)
    places, lengths = (324, 325) if tiled else (273, 279)
    own[places] = (LONG, tuple(starts))
    own[lengths] = (LONG, tuple(map(len, pieces)))
    entries = b""
    for tag, (kind, values) in sorted((own | others).items()):
        raw = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        room = struct.calcsize(offset)
        if len(raw) > room:
            body += b"\0" * (len(body) % 2)
            place, body = head + len(body), body + raw
            raw = struct.pack(order + offset, place)
        entries += struct.pack(order + "HH" + offset, tag, kind, len(values)) + raw.ljust(
            room, b"\0"
        )
    body += b"\0" * (len(body) % 2)
    directory = struct.pack(order + count, len(own | others)) + entries
    directory += struct.pack(order + offset, 0)
    start = head + len(body)
    header = b"II" if order == "<" else b"MM"
    if big:
        header += struct.pack(order + "HHHQ", 43, 8, 0, start)
    else:
        header += struct.pack(order + "HI", 42, start)
    return header + body + directory
