"""JPEG (ITU-T T.81): the segments that libjpeg needs.

Of the application segments only EXIF's orientation is read, and what JFIF's and Adobe's say about
the colours. A file of several images (MPO) shows the first.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.exif import PREFIX, orientation_of
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError
from mvlm.runtime.image.pillow import decode

_START_OF_SCAN, _END = 0xDA, 0xD9
# Huffman tables, arithmetic conditioning, quantization tables, restart interval.
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)
# Markers without a segment behind them: TEM, RST0 to RST7, SOI.
_BARE = (0x01, *range(0xD0, 0xD9))
_FRAMES = {
    0xC0: None,
    0xC1: None,
    0xC2: None,
    0xC9: None,
    0xCA: None,
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xCB: "lossless",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
}
# Application segments and comments.
_METADATA = (*range(0xE0, 0xF0), 0xFE)
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
# Their contents matter to no pixel, but their presence tells how colours are stored.
_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"

_MAX_SEGMENTS = 100_000


@dataclass
class _Segments:
    """What is kept of a file, in front of its first scan."""

    frame: bytes | None = None
    adobe: bytes | None = None
    has_jfif: bool = False
    exif: bytes | None = None
    kept: list[bytes] = field(default_factory=list)
    scan: int = 0  # where the first scan's marker stands


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read a JPEG.

    Raises:
        UnreadableError: The file is damaged, cut short, or of a kind of JPEG that is not read.
    """
    segments = _collect(data)
    check_size(_check_frame(segments.frame))
    parts = [b"\xff\xd8"]
    if segments.has_jfif:
        parts.append(_segment(_APP0, _JFIF))
    if segments.adobe is not None:
        parts.append(_segment(_APP14, segments.adobe))
    stream = b"".join([*parts, *segments.kept, memoryview(data)[segments.scan :]])
    image = decode(JpegImageFile, stream)
    return DecodedImage(_as_rgb(image), orientation_of(segments.exif))


def _as_rgb(image: Image.Image) -> Image.Image:
    # CMYK is inverted in all files that are around; Pillow and browsers take that for granted.
    return image.convert("RGB")


def _collect(data: bytes) -> _Segments:
    segments = _Segments()
    for marker, body in _walk(data, segments):
        if marker in _FRAMES:
            if segments.frame is not None:
                raise DamagedError("two frame headers")
            if name := _FRAMES[marker]:
                raise UnsupportedError(f"a {name} JPEG")
            segments.frame = body
        if marker in _FRAMES or marker in _TABLES:
            segments.kept.append(_segment(marker, body))
        elif marker == _APP0 and body.startswith(b"JFIF\0"):
            segments.has_jfif = True
        elif marker == _APP1 and body.startswith(PREFIX) and segments.exif is None:
            segments.exif = body
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            segments.adobe = body[:12]
    return segments


def _walk(data: bytes, segments: _Segments) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the body of each segment in front of the first scan."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = data.find(b"\xff", position)  # Decoders skip what is between two segments.
        while 0 <= position < len(data) - 1 and data[position + 1] == 0xFF:
            position += 1
        if position < 0 or position + 2 > len(data):
            raise CutShortError("the end of the file in front of the pixels")
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            segments.scan = position
            return
        if marker == _END:
            raise DamagedError("an end in front of the pixels")
        if marker == 0 or marker in _BARE:
            position += 2
            continue
        if position + 4 > len(data):
            raise CutShortError("the end of the file in front of the pixels")
        (length,) = struct.unpack_from(">H", data, position + 2)
        if length < 2 and marker in _METADATA:
            length = 2  # As libjpeg does.
        if length < 2:
            raise DamagedError(f"a segment {marker:02X} of {length} bytes")
        if position + 2 + length > len(data):
            raise CutShortError(f"the end of the file inside of the segment {marker:02X}")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    raise UnsupportedError(f"over {_MAX_SEGMENTS:,} segments")


def _check_frame(frame: bytes | None) -> tuple[int, int]:
    """Return the width and the height."""
    if frame is None:
        raise DamagedError("a scan without a frame header")
    if len(frame) < 6:
        raise DamagedError(f"a frame header of {len(frame)} bytes")
    precision, height, width, components = struct.unpack_from(">BHHB", frame)
    if precision != 8:
        raise UnsupportedError(f"a JPEG of {precision} bits a sample; only 8 are read")
    if components not in (1, 3, 4):
        raise UnsupportedError(f"a JPEG of {components} components")
    if len(frame) != 6 + 3 * components:
        raise DamagedError(f"a frame header of {len(frame)} bytes for {components} components")
    if not width:
        raise DamagedError("a width of 0")
    if not height:
        raise UnsupportedError("a JPEG whose height stands behind its pixels")
    return width, height


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
