"""WebP (https://developers.google.com/speed/webp/docs/riff_container).

Kept are the chunks of the first image; of the others only EXIF is read, for the orientation.
"""

import struct
from collections.abc import Iterator

from PIL.WebPImagePlugin import WebPImageFile

from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.exif import orientation_of
from mvlm.runtime.image.faults import CutShortError, DamagedError
from mvlm.runtime.image.pillow import decode

_RIFF_HEADER_BYTES = 12
_IMAGES = {b"ANMF", b"VP8 ", b"VP8L"}
_NEEDED = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L", b"EXIF")
# Flags of VP8X that stand for what is kept.
_ANIMATION, _ALPHA = 0x02, 0x10
_EXIF = 0x08
_MAX_CHUNKS = 100_000


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read a WebP, of an animation the first frame.

    Raises:
        UnreadableError: The file is damaged or cut short.
    """
    chunks = _first_image(data)
    exif = chunks.pop(b"EXIF", None)
    header = chunks.get(b"VP8X")
    if header is None:
        exif = None
    else:
        if len(header) < 10:
            raise DamagedError(f"a chunk VP8X of {len(header)} bytes")
        check_size((_24_bits(header, 4) + 1, _24_bits(header, 7) + 1))
        chunks[b"VP8X"] = bytes([header[0] & (_ANIMATION | _ALPHA)]) + header[1:10]
        exif = exif if header[0] & _EXIF else None
    image = decode(WebPImageFile, _stream(chunks), before_load=lambda image: check_size(image.size))
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    return DecodedImage(image.convert(mode), orientation_of(exif))


def _first_image(data: bytes) -> dict[bytes, bytes]:
    """Return the chunks that are needed, in the order that the format asks for."""
    found: dict[bytes, bytes] = {}
    for kind, body, is_whole in _walk(data, _RIFF_HEADER_BYTES):
        if kind in _IMAGES:
            if found.keys() & _IMAGES:
                continue  # A later frame.
            if not is_whole:
                raise CutShortError(f"the end of the file inside of the chunk {kind.decode()}")
            found[kind] = body
            if b"VP8X" not in found:
                break  # Nothing that counts follows in a file of the simple kind.
        elif kind in _NEEDED and is_whole:
            found.setdefault(kind, body)
    if not found.keys() & _IMAGES:
        (length,) = struct.unpack_from("<I", data, 4)
        if len(data) >= 8 + length:
            raise DamagedError("no image")
        raise CutShortError("the end of the file in front of the pixels")
    return {kind: found[kind] for kind in _NEEDED if kind in found}


def _walk(data: bytes, position: int) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the name and the body of each chunk, and whether its end is in the file."""
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        yield kind, data[position + 8 : end], end <= len(data)
        position = end + length % 2


def _stream(chunks: dict[bytes, bytes]) -> bytes:
    """Return a WebP of these chunks."""
    parts = [b"WEBP"]
    for kind, body in chunks.items():
        parts += [kind, struct.pack("<I", len(body)), body, b"\0" * (len(body) % 2)]
    content = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _24_bits(header: bytes, position: int) -> int:
    return int.from_bytes(header[position : position + 3], "little")
