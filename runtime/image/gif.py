"""GIF (https://www.w3.org/Graphics/GIF/spec-gif89a.txt): the first frame on its canvas.

Of the extensions only the one that names the transparent colour is read. What the first frame does
not cover is transparent, as browsers show it.
"""

import struct
from dataclasses import dataclass

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnreadableError
from mvlm.runtime.image.palette import apply_palette
from mvlm.runtime.image.pillow import decode

_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_HAS_COLOURS, _INTERLACED = 0x80, 0x40
_TRANSPARENT = 0x01
_MAX_SEARCH = 100_000
_CUT = "the end of the file in front of the last pixel"


@dataclass(frozen=True)
class _Frame:
    left: int
    top: int
    width: int
    height: int
    is_interlaced: bool
    colours: bytes
    pixels: bytes  # the compressed indexes, as in the file


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read the first frame of a GIF.

    Raises:
        UnreadableError: The file is damaged or cut short.
    """
    if len(data) < 6:
        raise CutShortError(_CUT)
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise DamagedError(f"the version {data[3:6]!r} of GIF")
    if len(data) < 13:
        raise CutShortError(_CUT)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    colours, position = _colours(data, 13, flags)
    position, transparent = _find_frame(data, position, (width, height))
    frame = _parse_frame(data, position, colours)
    # As in browsers, a first frame that is larger than the canvas extends it.
    canvas = (max(width, frame.left + frame.width), max(height, frame.top + frame.height))
    check_size(canvas)
    if not frame.colours:
        raise DamagedError("no colour table")
    alpha = b"" if transparent is None else b"\xff" * transparent + b"\0"
    pixels = apply_palette(decode(GifImageFile, _stream(frame)), frame.colours, alpha)
    if pixels.size != canvas:
        whole = Image.new("RGBA", canvas)
        whole.paste(pixels, (frame.left, frame.top))
        pixels = whole
    return DecodedImage(pixels)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _HAS_COLOURS else 0


def _colours(data: bytes, position: int, flags: int) -> tuple[bytes, int]:
    """Return a colour table, empty if there is none, and what follows it."""
    end = position + _table_bytes(flags)
    if end > len(data):
        raise CutShortError("the end of the file inside of a colour table")
    return data[position:end], end


def _find_frame(data: bytes, position: int, canvas: tuple[int, int]) -> tuple[int, int | None]:
    """Return where the first frame's header begins, and its transparent index."""
    transparent = None
    extension = None  # where the last one begins
    try:
        while position < len(data) and data[position] != _FRAME:
            kind = data[position]
            if kind == _TRAILER:
                raise DamagedError("no frame")
            if kind == _EXTENSION:
                extension = position
                if data[position + 1 : position + 2] == bytes([_GRAPHIC_CONTROL]):
                    transparent = _transparent_index(data, position + 2)
                position = _skip_blocks(data, position + 2)
            elif kind == 0:
                position += 1  # An empty block too many, which all decoders skip.
            else:
                raise DamagedError(f"no block at byte {position:,}")
        if position >= len(data):
            raise CutShortError("the end of the file in front of the first frame")
    except UnreadableError:
        # An extension of a wrong length leads anywhere, and the frame may be intact.
        found = None if extension is None else _search_frame(data, extension, canvas)
        if found is None:
            raise
        return found, transparent
    return position + 1, transparent


def _search_frame(data: bytes, start: int, canvas: tuple[int, int]) -> int | None:
    """Return where a frame's header begins that fits on the canvas and has whole pixels."""
    for position in range(start, min(len(data) - 10, start + _MAX_SEARCH)):
        if data[position] != _FRAME:
            continue
        left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position + 1)
        pixels = position + 10 + _table_bytes(flags)
        fits = left + width <= canvas[0] and top + height <= canvas[1]
        if width and height and fits and b"\2" <= data[pixels : pixels + 1] <= b"\x08":
            return position + 1
    return None


def _transparent_index(data: bytes, position: int) -> int | None:
    """Return what the graphic control, whose block begins here, declares to be transparent."""
    control = data[position + 1 : position + 5]
    if data[position : position + 1] < b"\4" or len(control) < 4:
        return None
    return control[3] if control[0] & _TRANSPARENT else None


def _skip_blocks(data: bytes, position: int) -> int:
    """Return what follows a chain of blocks."""
    while position < len(data):
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise CutShortError(_CUT)


def _parse_frame(data: bytes, position: int, colours: bytes) -> _Frame:
    if position + 9 > len(data):
        raise CutShortError(_CUT)
    left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position)
    own_colours, position = _colours(data, position + 9, flags)
    if not width or not height:
        raise DamagedError(f"a frame of {width}x{height} pixels")
    is_interlaced = bool(flags & _INTERLACED)
    pixels = data[position : _end_of_pixels(data, position)]
    return _Frame(left, top, width, height, is_interlaced, own_colours or colours, pixels)


def _end_of_pixels(data: bytes, position: int) -> int:
    if position >= len(data):
        raise CutShortError(_CUT)
    try:
        return _skip_blocks(data, position + 1)
    except CutShortError:
        return len(data)  # The pixels may be all there.


def _stream(frame: _Frame) -> bytes:
    """Return a GIF of this frame alone, without colours: Pillow then returns the indexes."""
    size = struct.pack("<HH", frame.width, frame.height)
    flags = bytes([_INTERLACED if frame.is_interlaced else 0])
    return b"".join([
        b"GIF89a", size, b"\0\0\0",
        bytes([_FRAME]), b"\0\0\0\0", size, flags, frame.pixels, b"\0", bytes([_TRAILER]),
    ])  # fmt: skip
