"""BMP of Windows and OS/2, decoded here.

Pillow reads some run-length encoded files wrongly, refuses unusual masks, and shows nothing at all
of a file whose alpha is 0 everywhere, as many programs write it.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mvlm.runtime.image.bmp_rle import decode_rle
from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError
from mvlm.runtime.image.grey import scale_table
from mvlm.runtime.image.palette import palette_table
from mvlm.runtime.image.rows import Array, build_rows

_FILE_HEADER_BYTES = 14
_CORE = 12
# OS/2 2 (16 and 64 bytes), Windows 3 (40), with masks (52, 56), 4 (108) and 5 (124).
_HEADERS = (_CORE, 16, 40, 52, 56, 64, 108, 124)
_OS2 = (16, 64)
_RAW, _RUNS_8, _RUNS_4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_NAMES = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
_DEFAULT_MASKS = {
    16: (0x7C00, 0x3E0, 0x1F, 0),
    32: (0xFF0000, 0xFF00, 0xFF, 0),
}


@dataclass(frozen=True)
class _Header:
    size: int
    width: int
    height: int
    is_top_down: bool
    bits: int
    compression: int
    colours: int
    masks: tuple[int, int, int, int]
    end: int  # of the header and the masks behind it

    @property
    def row_bytes(self) -> int:
        """The bytes of a row's pixels."""
        return (self.width * self.bits + 7) // 8

    @property
    def stride(self) -> int:
        """The bytes from a row to the next."""
        return (self.width * self.bits + 31) // 32 * 4


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read a BMP.

    Raises:
        UnreadableError: The file is damaged, cut short, or of a kind of BMP that is not read.
    """
    header = _parse_header(data)
    check_size((header.width, header.height))
    (start,) = struct.unpack_from("<I", data, 10)
    if start < header.end:
        start = header.end + _palette_bytes(header)
    if start >= len(data):
        raise CutShortError("the end of the file in front of the pixels")
    if header.bits <= 8:
        table = palette_table(_palette(data, header, start))
        indexes = _indexes(data, header, start)
        return DecodedImage(_build(header, "RGB", lambda rows: table[indexes(rows)]))
    rows = _rows(data, header, start)
    if header.bits == 24:
        width = header.width
        return DecodedImage(_build(
            header, "RGB", lambda at: rows[at, : 3 * width].reshape(-1, width, 3)[..., ::-1]
        ))  # fmt: skip
    return DecodedImage(_masked(header, rows))


def _parse_header(data: bytes) -> _Header:
    if len(data) < _FILE_HEADER_BYTES + 4:
        raise CutShortError("the end of the file inside of its header")
    (size,) = struct.unpack_from("<I", data, _FILE_HEADER_BYTES)
    if size not in _HEADERS:
        raise DamagedError(f"a BMP header of {size} bytes")
    end = _FILE_HEADER_BYTES + size
    if end > len(data):
        raise CutShortError("the end of the file inside of its header")
    body = data[_FILE_HEADER_BYTES:end].ljust(124, b"\0")
    if size == _CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", body, 4)
        compression = colours = 0
    else:
        width, height, _, bits, compression, colours = struct.unpack_from("<iiHHI12xI", body, 4)
    _check_kind(size, bits, compression)
    if width <= 0 or not height:
        raise DamagedError(f"a size of {width}x{height}")
    masks, end = _parse_masks(data, body, size, bits, compression)
    return _Header(
        size, width, abs(height), height < 0, bits, compression, colours, masks, end
    )  # fmt: skip


def _check_kind(size: int, bits: int, compression: int) -> None:
    kinds = {_RAW: (1, 2, 4, 8, 16, 24, 32), _RUNS_8: (8,), _RUNS_4: (4,)}
    if size not in _OS2:
        kinds |= {_MASKS: (16, 32), _ALPHA_MASKS: (16, 32)}
    if compression not in kinds:
        name = _NAMES.get(compression, f"the compression {compression}")
        raise UnsupportedError(f"a BMP that holds {name}")
    if bits not in kinds[compression]:
        raise DamagedError(f"{bits} bits a pixel with the compression {compression}")


def _parse_masks(
    data: bytes, body: bytes, size: int, bits: int, compression: int
) -> tuple[tuple[int, int, int, int], int]:
    """Return the bits of red, green, blue and alpha in a pixel, and where the header ends."""
    end = _FILE_HEADER_BYTES + size
    if compression not in (_MASKS, _ALPHA_MASKS):
        return _DEFAULT_MASKS.get(bits, (0, 0, 0, 0)), end
    if size == 40:
        count = 3 if compression == _MASKS else 4
        if end + 4 * count > len(data):
            raise CutShortError("the end of the file inside of its header")
        body = data[end : end + 4 * count].ljust(16, b"\0")
        end += 4 * count
    else:
        body = body[40:56] if size >= 56 else body[40:52] + b"\0\0\0\0"
    red, green, blue, alpha = struct.unpack("<4I", body)
    if not (red or green or blue):
        return _DEFAULT_MASKS[bits], end
    for mask in (red, green, blue, alpha):
        ones = mask >> ((mask & -mask).bit_length() - 1) if mask else 0
        if ones & (ones + 1) or mask >> bits:
            raise DamagedError(f"the mask {mask:#x} for {bits} bits")
    return (red, green, blue, alpha), end


def _palette_bytes(header: _Header) -> int:
    entry = 3 if header.size == _CORE else 4
    if header.bits > 8:
        return entry * min(header.colours, 256)
    return entry * min(header.colours or 1 << header.bits, 256)


def _palette(data: bytes, header: _Header, start: int) -> bytes:
    """Return red, green and blue of each entry."""
    entry = 3 if header.size == _CORE else 4
    end = min(header.end + _palette_bytes(header), start)
    entries = np.frombuffer(data[header.end : end], np.uint8)
    entries = entries[: len(entries) // entry * entry].reshape(-1, entry)
    if not len(entries):
        raise DamagedError("palette indexes without a palette")
    return entries[:, 2::-1].tobytes()


def _rows(data: bytes, header: _Header, start: int) -> Array:
    """Return the rows in the order of the file: (height, stride) uint8."""
    length = header.stride * header.height
    pixels = np.frombuffer(data, np.uint8, offset=start, count=min(length, len(data) - start))
    padding = header.stride - header.row_bytes
    if len(pixels) < length - padding:  # Some programs leave out the last row's padding.
        raise CutShortError(f"{len(pixels):,} of {length:,} bytes of pixels")
    if len(pixels) < length:
        pixels = np.pad(pixels, (0, length - len(pixels)))
    return pixels.reshape(header.height, header.stride)


def _indexes(data: bytes, header: _Header, start: int) -> Callable[[slice], Array]:
    """Return a function that returns the palette indexes of rows of the file."""
    if header.compression in (_RUNS_4, _RUNS_8):
        size = header.width, header.height
        decoded = decode_rle(data, start, size, is_4_bit=header.compression == _RUNS_4)
        return lambda at: decoded[at]
    rows = _rows(data, header, start)
    if header.bits == 8:
        return lambda at: rows[at, : header.width]
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)

    def unpack(at: slice) -> Array:
        parts = rows[at, : header.row_bytes, None] >> shifts & (1 << header.bits) - 1
        return parts.reshape(len(parts), -1)[:, : header.width]

    return unpack


def _build(header: _Header, mode: str, compute: Callable[[slice], Array]) -> Image.Image:
    """Return the image, whose rows the file may hold from the bottom to the top."""
    if header.is_top_down:
        return build_rows(
            (header.width, header.height), mode, lambda top, bottom: compute(slice(top, bottom))
        )
    last = header.height
    return build_rows(
        (header.width, header.height),
        mode,
        lambda top, bottom: compute(slice(last - bottom, last - top))[::-1],
    )


def _masked(header: _Header, rows: Array) -> Image.Image:
    """Decode pixels of 16 or 32 bits."""
    has_alpha = header.masks[3] != 0
    masks = header.masks if has_alpha else header.masks[:3]
    kind = "<u2" if header.bits == 16 else "<u4"

    def compute(at: slice) -> Array:
        pixels = np.ascontiguousarray(rows[at, : header.row_bytes]).view(kind)
        return np.stack([_channel(pixels, mask) for mask in masks], axis=-1)

    image = _build(header, "RGBA" if has_alpha else "RGB", compute)
    # Alpha that is 0 everywhere was never set.
    is_unset = has_alpha and image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if is_unset else image


def _channel(pixels: Array, mask: int) -> Array:
    """Return the bits of `mask`, scaled to 0 to 255."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    white = mask >> shift
    samples = (pixels & pixels.dtype.type(mask)) >> pixels.dtype.type(shift)
    excess = max(white.bit_length() - 16, 0)
    table = scale_table(white >> excess)
    scaled: Array = table[samples >> pixels.dtype.type(excess)]
    return scaled
