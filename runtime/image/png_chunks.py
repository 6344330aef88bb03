"""The chunks of a PNG that make the visible image.

Of the ancillary chunks only tRNS (transparency) and eXIf (orientation) are kept.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from mvlm.runtime.image.faults import DamagedError, UnsupportedError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Each costs time even if it is empty. Encoders write at least a few kilobytes into a chunk.
_MAX_CHUNKS = 1_000_000
_MAX_CHUNK_BYTES = 2**31 - 1


@dataclass
class Chunks:
    """What is kept of a file."""

    header: bytes | None = None
    palette: bytes | None = None
    transparency: bytes | None = None
    exif: bytes | None = None
    pixels: list[memoryview] = field(default_factory=list)
    broken: str | None = None  # why the walk ended before IEND


def collect(data: bytes) -> Chunks:
    """Return the chunks that count, up to IEND or to where the file breaks off.

    Raises:
        DamagedError: A chunk that counts is damaged or out of place.
        UnsupportedError: A critical chunk that is not read, or a flood of chunks.
    """
    chunks = Chunks()
    for kind, body, is_sound in _walk(data, chunks):
        if kind[0] & 0x20:  # Ancillary, by the case of its first letter.
            _keep_ancillary(chunks, kind, body, is_sound)
            continue
        if kind == b"IEND":
            break
        if not is_sound:
            raise DamagedError(f"a wrong checksum of the chunk {kind.decode()}")
        _keep_critical(chunks, kind, body)
    return chunks


def _walk(data: bytes, chunks: Chunks) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield the name and the body of each chunk, and whether its checksum is right.

    A chunk that runs past the end is yielded only if it holds pixels: they may be all there.
    """
    view = memoryview(data)
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            chunks.broken = "the end of the file before the chunk IEND"
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        if not (kind.isalpha() and kind.isascii()) or length > _MAX_CHUNK_BYTES:
            chunks.broken = f"no chunk at byte {position:,}"
            if chunks.pixels:
                return
            raise DamagedError(chunks.broken)
        body = view[position + 8 : position + 8 + length]
        position += 8 + length
        if position + 4 > len(data):
            chunks.broken = f"the end of the file inside of the chunk {kind.decode()}"
            if kind == b"IDAT":
                yield kind, body, True
            return
        (checksum,) = struct.unpack_from(">I", data, position)
        yield kind, body, zlib.crc32(body, zlib.crc32(kind)) == checksum
        position += 4
    raise UnsupportedError(f"over {_MAX_CHUNKS:,} chunks")


def _keep_ancillary(chunks: Chunks, kind: bytes, body: memoryview, is_sound: bool) -> None:
    if kind == b"tRNS" and chunks.transparency is None:
        if not is_sound:
            raise DamagedError("a wrong checksum of the transparency (chunk tRNS)")
        chunks.transparency = bytes(body)
    elif kind == b"eXIf" and chunks.exif is None and is_sound:
        chunks.exif = bytes(body)


def _keep_critical(chunks: Chunks, kind: bytes, body: memoryview) -> None:
    if (kind == b"IHDR") != (chunks.header is None):
        if kind == b"CgBI":
            raise UnsupportedError("a PNG in Apple's own variant (CgBI)")
        raise DamagedError(f"the chunk {kind.decode()} where IHDR is to be the first and only one")
    if kind == b"IHDR":
        chunks.header = bytes(body)
    elif kind == b"PLTE":
        if chunks.palette is None:
            chunks.palette = bytes(body)
    elif kind == b"IDAT":
        chunks.pixels.append(body)
    else:
        raise UnsupportedError(f"the critical chunk {kind.decode()}, which no specification names")
