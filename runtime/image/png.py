"""PNG (https://www.w3.org/TR/png-3/).

Pillow decodes a new file of the critical chunks; palettes and transparency are applied here. An
animation shows its default image.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFile
from PIL.PngImagePlugin import PngImageFile

from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.exif import orientation_of
from mvlm.runtime.image.faults import CutShortError, DamagedError
from mvlm.runtime.image.grey import scale_table
from mvlm.runtime.image.palette import apply_palette
from mvlm.runtime.image.pillow import decode
from mvlm.runtime.image.png_chunks import SIGNATURE, Chunks, collect
from mvlm.runtime.image.rows import Array, map_rows

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


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read a PNG.

    Raises:
        UnreadableError: The file is damaged, cut short, or no PNG that the specification knows.
    """
    if SIGNATURE.startswith(data):
        raise CutShortError("the end of the file inside of its signature")
    if not data.startswith(SIGNATURE):
        raise DamagedError("a PNG signature that was changed, as by a transfer as text")
    chunks = collect(data)
    header = _parse_header(chunks)
    check_size((header.width, header.height))
    _check_pixels(header, chunks)
    palette = _parse_palette(header, chunks)
    stream = _stream(chunks, palette)
    image = decode(PngImageFile, stream)
    return DecodedImage(
        _colour(image, header, chunks, palette, stream), orientation_of(chunks.exif)
    )


def _parse_header(chunks: Chunks) -> _Header:
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


def _check_pixels(header: _Header, chunks: Chunks) -> None:
    """Find out whether all pixels are there; Pillow does not notice missing rows."""
    try:
        there, has_ended = _count_inflated(chunks.pixels, header.pixel_bytes)
    except zlib.error as error:
        raise DamagedError(f"compressed pixels (chunk IDAT) that are wrong: {error}") from error
    if there < header.pixel_bytes:
        found = f"{there:,} of {header.pixel_bytes:,} bytes of pixels"
        if chunks.broken and not has_ended:
            raise CutShortError(f"{found}, and {chunks.broken}")
        raise DamagedError(found)


def _count_inflated(chunks: list[memoryview], enough: int) -> tuple[int, bool]:
    """Return how many bytes come of it, up to `enough`, and whether the stream has ended."""
    inflator = zlib.decompressobj()
    total = 0
    for piece in _pieces(chunks):
        rest: bytes | memoryview = piece
        while True:
            inflated = inflator.decompress(rest, _INFLATED_STEP)
            total += len(inflated)
            rest = inflator.unconsumed_tail
            if total >= enough or inflator.eof:
                return min(total, enough), inflator.eof
            if not rest and len(inflated) < _INFLATED_STEP:
                break
    return total, False


def _pieces(chunks: list[memoryview]) -> Iterator[memoryview]:
    """Yield the chunks in short pieces, because zlib copies what it has not consumed."""
    for chunk in chunks:
        for start in range(0, len(chunk), _DEFLATED_STEP):
            yield chunk[start : start + _DEFLATED_STEP]


def _parse_palette(header: _Header, chunks: Chunks) -> bytes | None:
    if header.colour_type != _PALETTE:
        return None
    if chunks.palette is None:
        raise DamagedError("palette indexes without a palette (chunk PLTE)")
    if not 0 < len(chunks.palette) <= 3 * 256 or len(chunks.palette) % 3:
        raise DamagedError(f"a palette (chunk PLTE) of {len(chunks.palette)} bytes")
    return chunks.palette


def _stream(chunks: Chunks, palette: bytes | None) -> bytes:
    """Return a PNG of the critical chunks alone."""
    parts = [SIGNATURE, *_chunk(b"IHDR", [chunks.header or b""])]
    if palette is not None:
        parts += _chunk(b"PLTE", [palette])
    return b"".join([*parts, *_chunk(b"IDAT", chunks.pixels), *_chunk(b"IEND", [])])


def _chunk(kind: bytes, bodies: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    checksum = zlib.crc32(kind)
    for body in bodies:
        checksum = zlib.crc32(body, checksum)
    length = sum(map(len, bodies))
    return [struct.pack(">I", length), kind, *bodies, struct.pack(">I", checksum)]


def _colour(
    image: Image.Image, header: _Header, chunks: Chunks, palette: bytes | None, stream: bytes
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
