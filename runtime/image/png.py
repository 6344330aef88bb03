"""PNG (https://www.w3.org/TR/png-3/): the chunks that make the visible image.

Of the ancillary chunks only tRNS (transparency) and eXIf (orientation) are read. An animation shows
its default image.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageFile
from PIL.PngImagePlugin import PngImageFile

from mvlm.runtime.image.exif import orientation_of
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError
from mvlm.runtime.image.grey import scale_table
from mvlm.runtime.image.palette import apply_palette
from mvlm.runtime.image.pillow import decode
from mvlm.runtime.image.rows import Array, map_rows
from mvlm.runtime.image.visible import CheckSize, Visible

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGBA: (8, 16),
}
# The passes of an interlaced image: first column and row, step of columns and of rows.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip

# Each costs time even if it is empty. Encoders write at least a few kilobytes into a chunk.
_MAX_CHUNKS = 1_000_000
_MAX_CHUNK_BYTES = 2**31 - 1
_DEFLATED_STEP, _INFLATED_STEP = 2**16, 2**20


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    depth: int
    colour_type: int
    is_interlaced: bool

    @property
    def pixel_bytes(self) -> int:
        """The bytes of all rows, each with its filter's number in front."""
        bits = self.depth * _CHANNELS[self.colour_type]
        if not self.is_interlaced:
            return self.height * (1 + (self.width * bits + 7) // 8)
        total = 0
        for left, top, across, down in _PASSES:
            columns = (self.width - left + across - 1) // across
            rows = (self.height - top + down - 1) // down
            total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
        return total


@dataclass
class _Chunks:
    """What is kept of a file."""

    header: bytes | None = None
    palette: bytes | None = None
    transparency: bytes | None = None
    exif: bytes | None = None
    pixels: list[memoryview] = field(default_factory=list)
    broken: str | None = None  # why the walk ended before IEND


def read(data: bytes, check_size: CheckSize) -> Visible:
    """Read a PNG.

    Raises:
        UnreadableError: The file is damaged, cut short, or no PNG that the specification knows.
    """
    if _SIGNATURE.startswith(data):
        raise CutShortError("the end of the file inside of its signature")
    if not data.startswith(_SIGNATURE):
        raise DamagedError("a PNG signature that was changed, as by a transfer as text")
    chunks = _collect(data)
    header = _parse_header(chunks)
    check_size((header.width, header.height))
    pixels = b"".join(chunks.pixels)
    _check_pixels(header, pixels, chunks.broken)
    palette = _parse_palette(header, chunks)
    stream = _stream(chunks.header or b"", palette, pixels)
    image = decode(PngImageFile, stream)
    return Visible(_colour(image, header, chunks, palette, stream), orientation_of(chunks.exif))


def _collect(data: bytes) -> _Chunks:
    chunks = _Chunks()
    for kind, body, is_sound in _walk(data, chunks):
        if kind[0] & 0x20:  # Ancillary, by the case of its first letter.
            _keep_ancillary(chunks, kind, body, is_sound)
            continue
        if not is_sound:
            raise DamagedError(f"a wrong checksum of the chunk {kind.decode()}")
        if kind == b"IEND":
            break
        _keep_critical(chunks, kind, body)
    return chunks


def _walk(data: bytes, chunks: _Chunks) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield the name and the body of each chunk, and whether its checksum is right.

    A chunk that runs past the end is yielded only if it holds pixels: they may be all there.
    """
    view = memoryview(data)
    position = len(_SIGNATURE)
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


def _keep_ancillary(chunks: _Chunks, kind: bytes, body: memoryview, is_sound: bool) -> None:
    if kind == b"tRNS" and chunks.transparency is None:
        if not is_sound:
            raise DamagedError("a wrong checksum of the transparency (chunk tRNS)")
        chunks.transparency = bytes(body)
    elif kind == b"eXIf" and chunks.exif is None and is_sound:
        chunks.exif = bytes(body)


def _keep_critical(chunks: _Chunks, kind: bytes, body: memoryview) -> None:
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


def _parse_header(chunks: _Chunks) -> _Header:
    if chunks.header is None:
        if chunks.broken:
            raise CutShortError(chunks.broken)
        raise DamagedError("no chunk IHDR")
    if len(chunks.header) != 13:
        raise DamagedError(f"a chunk IHDR of {len(chunks.header)} bytes instead of 13")
    width, height, depth, colour_type, compression, filters, interlace = struct.unpack(
        ">IIBBBBB", chunks.header
    )
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise DamagedError(f"a size of {width}x{height} in the chunk IHDR")
    if depth not in _DEPTHS.get(colour_type, ()):
        raise DamagedError(f"{depth} bits with the colour type {colour_type} in the chunk IHDR")
    if compression or filters or interlace > 1:
        raise DamagedError(
            f"compression {compression}, filters {filters} and interlacing {interlace}"
            " in the chunk IHDR"
        )
    return _Header(width, height, depth, colour_type, bool(interlace))


def _check_pixels(header: _Header, pixels: bytes, broken: str | None) -> None:
    """Find out whether all pixels are there; Pillow does not notice missing rows."""
    try:
        there, has_ended = _count_inflated(memoryview(pixels), header.pixel_bytes)
    except zlib.error as error:
        raise DamagedError(f"compressed pixels (chunk IDAT) that are wrong: {error}") from error
    if there < header.pixel_bytes:
        found = f"{there:,} of {header.pixel_bytes:,} bytes of pixels"
        if broken and not has_ended:
            raise CutShortError(f"{found}, and {broken}")
        raise DamagedError(found)


def _count_inflated(compressed: memoryview, enough: int) -> tuple[int, bool]:
    """Return how many bytes come of it, up to `enough`, and whether the stream has ended."""
    inflator = zlib.decompressobj()
    total = 0
    for start in range(0, len(compressed), _DEFLATED_STEP):
        rest: bytes | memoryview = compressed[start : start + _DEFLATED_STEP]
        while True:
            inflated = inflator.decompress(rest, _INFLATED_STEP)
            total += len(inflated)
            rest = inflator.unconsumed_tail
            if total >= enough or inflator.eof:
                return min(total, enough), inflator.eof
            if not rest and len(inflated) < _INFLATED_STEP:
                break
    return total, False


def _parse_palette(header: _Header, chunks: _Chunks) -> bytes | None:
    if header.colour_type != _PALETTE:
        return None
    if chunks.palette is None:
        raise DamagedError("palette indexes without a palette (chunk PLTE)")
    if not 0 < len(chunks.palette) <= 3 * 256 or len(chunks.palette) % 3:
        raise DamagedError(f"a palette (chunk PLTE) of {len(chunks.palette)} bytes")
    return chunks.palette


def _stream(header: bytes, palette: bytes | None, pixels: bytes) -> bytes:
    """Return a PNG of the critical chunks alone."""

    def chunk(kind: bytes, body: bytes) -> list[bytes]:
        checksum = zlib.crc32(body, zlib.crc32(kind))
        return [struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)]

    parts = [_SIGNATURE, *chunk(b"IHDR", header)]
    if palette is not None:
        parts += chunk(b"PLTE", palette)
    return b"".join(parts + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def _colour(
    image: Image.Image, header: _Header, chunks: _Chunks, palette: bytes | None, stream: bytes
) -> Image.Image:
    """Return `image` as ``RGB`` or ``RGBA``."""
    if palette is not None:
        return apply_palette(image, palette, chunks.transparency or b"")
    if header.colour_type in (_GREY_ALPHA, _RGBA):
        return image.convert("RGBA")
    key = _transparent_colour(header, chunks.transparency)
    if header.colour_type == _GREY and header.depth == 16:
        return _grey_16(image, key)
    rgb = image.convert("RGB")
    if key is None:
        return rgb
    if header.depth < 16:
        scale = 255 // (2**header.depth - 1)
        rgb.putalpha(_opaque_unlike(rgb, [scale * value for value in key]))
        return rgb
    # Pillow keeps the upper byte of a sample. Read in the other order, it keeps the lower one.
    low = decode(PngImageFile, stream, before_load=_take_lower_bytes)
    upper_alpha = _opaque_unlike(rgb, [value >> 8 for value in key])
    lower_alpha = _opaque_unlike(low, [value & 0xFF for value in key])
    rgb.putalpha(ImageChops.lighter(upper_alpha, lower_alpha))
    return rgb


def _transparent_colour(header: _Header, transparency: bytes | None) -> list[int] | None:
    """Return the one colour that is transparent, in samples of the file's depth."""
    if transparency is None:
        return None
    count = _CHANNELS[header.colour_type]
    if len(transparency) != 2 * count:
        raise DamagedError(f"a transparency (chunk tRNS) of {len(transparency)} bytes")
    samples = struct.unpack(f">{count}H", transparency)
    return [sample & (2**header.depth - 1) for sample in samples] * (3 // count)


def _grey_16(image: Image.Image, key: list[int] | None) -> Image.Image:
    levels = scale_table(65535)
    grey = map_rows(image, "L", lambda band: levels[band])
    rgb = grey.convert("RGB")
    if key is not None:
        rgb.putalpha(map_rows(image, "L", lambda band: _opacity(band != key[0])))
    return rgb


def _opaque_unlike(rgb: Image.Image, colour: list[int]) -> Image.Image:
    """Return 0 where a pixel has this colour, else 255, mode ``L``."""
    return map_rows(rgb, "L", lambda band: _opacity((band != np.array(colour)).any(axis=2)))


def _opacity(is_opaque: Array) -> Array:
    return np.where(is_opaque, 255, 0).astype(np.uint8)


def _take_lower_bytes(image: ImageFile.ImageFile) -> None:
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
