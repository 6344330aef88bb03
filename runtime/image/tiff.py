"""TIFF 6.0 and BigTIFF: the tags that make the visible image of the first page.

The file is decoded by libtiff after its first directory has been replaced by one that holds only
these tags. What Pillow would read wrongly is declared there in another way, and put right here.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.exif import valid_orientation
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError
from mvlm.runtime.image.grey import scale_table, stretch_to_8_bit
from mvlm.runtime.image.libtiff import by_libtiff
from mvlm.runtime.image.palette import apply_palette
from mvlm.runtime.image.pillow import decode
from mvlm.runtime.image.rows import Array, map_rows
from mvlm.runtime.image.tiff_directory import Directory, Tag, read_directory

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_UNCOMPRESSED, _OLD_JPEG = 1, 6
# Also fax, LZW, JPEG, deflate, PackBits, LZMA and Zstandard: what Pillow's libtiff is built with.
_COMPRESSIONS = {_UNCOMPRESSED, 2, 3, 4, 5, _OLD_JPEG, 7, 8, 32773, 32946, 34925, 50000}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_UNSIGNED, _SIGNED = 1, 2
_SEPARATE = 2
# Pillow's names of orders of samples.
_NATIVE = {
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
}


@dataclass(frozen=True)
class _Samples:
    """How a file stores its samples, as its tags say."""

    photometric: int
    bits: tuple[int, ...]
    kind: int  # SampleFormat: 1 unsigned, 2 signed, 3 float
    extra: tuple[int, ...]
    compression: int
    planes: int

    @property
    def is_grey(self) -> bool:
        """Whether the first sample is grey."""
        return self.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)

    @property
    def is_deep_grey(self) -> bool:
        """Whether pixels are grey of more than 8 bits."""
        return self.is_grey and len(self.bits) == 1 and self.bits[0] > 8

    @property
    def is_grey_with_more(self) -> bool:
        """Whether pixels are grey of 8 bits and another sample, such as alpha."""
        return self.is_grey and self.bits == (8, 8)

    def __str__(self) -> str:
        return (
            f"photometric interpretation {self.photometric}, bits {self.bits},"
            f" sample format {self.kind}, extra samples {self.extra},"
            f" compression {self.compression}, planar configuration {self.planes}"
        )


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read the first page of a TIFF.

    Raises:
        UnreadableError: The file is damaged, cut short, or of a kind of TIFF that is not read.
    """
    directory = read_directory(data)
    size = directory.number(Tag.WIDTH), directory.number(Tag.HEIGHT)
    if not size[0] or not size[1]:
        raise DamagedError(f"a size of {size[0]}x{size[1]}")
    check_size((size[0], size[1]))
    samples = _samples(directory)
    image = _decode(directory, samples)
    pixels = _colour(image, samples, directory)
    return DecodedImage(pixels, valid_orientation(directory.number(Tag.ORIENTATION)))


def _samples(directory: Directory) -> _Samples:
    count = directory.number(Tag.SAMPLES_PER_PIXEL, 1) or 0
    bits = directory.numbers(Tag.BITS_PER_SAMPLE) or (1,)
    if len(bits) == 1:
        bits *= min(count, 16)
    return _Samples(
        photometric=directory.number(Tag.PHOTOMETRIC, _WHITE_IS_ZERO) or 0,
        bits=bits[:count],
        kind=(directory.numbers(Tag.SAMPLE_FORMAT) or (_UNSIGNED,))[0],
        extra=directory.numbers(Tag.EXTRA_SAMPLES),
        compression=directory.number(Tag.COMPRESSION, 1) or 0,
        planes=directory.number(Tag.PLANES, 1) or 0,
    )


def _decode(directory: Directory, samples: _Samples) -> Image.Image:
    _check_kind(samples)
    if samples.compression == _UNCOMPRESSED:
        directory = _with_exact_strips(directory, samples)
    if directory.is_cut_short():
        raise CutShortError("the end of the file inside of the pixels")
    stream = _rewritten(directory, samples).to_file()
    try:
        return decode(TiffImageFile, stream, before_load=_take_native_order, setting=by_libtiff())
    except DamagedError as error:
        if str(error) == "unknown pixel mode" or samples.compression == _OLD_JPEG:
            raise UnsupportedError(f"a TIFF of {samples}") from error
        if str(error).startswith("decoder error"):
            raise DamagedError(f"pixels that libtiff cannot decode ({error})") from error
        raise


def _check_kind(samples: _Samples) -> None:
    if samples.compression not in _COMPRESSIONS:
        raise UnsupportedError(f"a TIFF of the compression {samples.compression}")
    # Pillow reads them wrongly.
    if samples.is_grey and len(samples.bits) > 1 and samples.planes == _SEPARATE:
        raise UnsupportedError(f"a TIFF of {samples}")


def _with_exact_strips(directory: Directory, samples: _Samples) -> Directory:
    """Return the directory with strips as long as their rows.

    Some programs count a whole strip where the last one has fewer rows, or nothing at all, and
    libtiff believes them.
    """
    lengths = directory.numbers(Tag.STRIP_BYTES)
    width, height = directory.number(Tag.WIDTH) or 0, directory.number(Tag.HEIGHT) or 0
    rows = min(directory.number(Tag.ROWS_PER_STRIP) or height, height)
    strips = -(-height // rows)
    planes = len(samples.bits) if samples.planes == _SEPARATE else 1
    if len(lengths) != strips * planes or samples.photometric == _YCBCR:
        return directory
    bits = samples.bits[0] if planes > 1 else sum(samples.bits)
    row_bytes = (width * bits + 7) // 8
    needed = [row_bytes * min(rows, height - rows * strip) for strip in range(strips)] * planes
    exact = tuple(needed)
    return directory if exact == lengths else directory.but({Tag.STRIP_BYTES: exact})


def _take_native_order(image: ImageFile.ImageFile) -> None:
    """Say that samples are in this machine's order, as libtiff returns them.

    Pillow says so of unsigned samples of 16 bits alone.
    """
    image.tile = [
        tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        for tile in image.tile
        if isinstance(tile.args, tuple)
    ]


def _rewritten(directory: Directory, samples: _Samples) -> Directory:
    """Return the directory as Pillow is to see it."""
    changes = directory.bytes_as_numbers() | {Tag.ORIENTATION: ()}
    if samples.is_deep_grey or samples.is_grey_with_more:
        changes[Tag.PHOTOMETRIC] = (_BLACK_IS_ZERO,)
    if samples.is_deep_grey and samples.bits == (32,) and samples.kind == _UNSIGNED:
        changes[Tag.SAMPLE_FORMAT] = (_SIGNED,)
    has_unnamed_alpha = samples.photometric == _RGB and len(samples.bits) == 4 and not samples.extra
    if samples.is_grey_with_more or has_unnamed_alpha:
        changes[Tag.EXTRA_SAMPLES] = (_UNASSOCIATED,)
    return directory.but(changes)


def _colour(image: Image.Image, samples: _Samples, directory: Directory) -> Image.Image:
    """Return `image` as ``RGB`` or ``RGBA``."""
    is_inverted = samples.photometric == _WHITE_IS_ZERO
    if samples.is_deep_grey:
        return _deep_grey(image, samples, is_inverted).convert("RGB")
    if samples.is_grey_with_more:
        return _grey_with_more(image, samples.extra, is_inverted)
    if image.mode in ("P", "PA"):
        return _palette(image, directory.numbers(Tag.COLOUR_MAP))
    return image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")


def _deep_grey(image: Image.Image, samples: _Samples, is_inverted: bool) -> Image.Image:
    bits = samples.bits[0]
    if samples.kind == _UNSIGNED and bits <= 16:
        # Larger samples are not possible, except in damaged files.
        levels = scale_table(2**bits - 1, inverted=is_inverted)
        return map_rows(image, "L", lambda band: levels[np.minimum(band, 2**bits - 1)])
    values = np.asarray(image)
    if samples.kind == _UNSIGNED and values.dtype == np.int32:
        values = values.view(np.uint32)
    grey = stretch_to_8_bit(values)
    return grey.point([255 - value for value in range(256)]) if is_inverted else grey


def _grey_with_more(image: Image.Image, extra: tuple[int, ...], is_inverted: bool) -> Image.Image:
    grey, alpha = image.split()
    if is_inverted:
        grey = grey.point([255 - value for value in range(256)])
    if not extra or extra[0] not in (_ASSOCIATED, _UNASSOCIATED):
        return grey.convert("RGB")  # What the second sample means is not said.
    if extra[0] == _ASSOCIATED:
        grey = map_rows(Image.merge("LA", (grey, alpha)), "L", _unmultiply)
    rgba = grey.convert("RGBA")
    rgba.putalpha(alpha)
    return rgba


def _unmultiply(band: Array) -> Array:
    """Divide grey by its alpha: (rows, width, 2) to (rows, width)."""
    grey, alpha = band[..., 0].astype(np.uint16), band[..., 1].astype(np.uint16)
    straight: Array = np.minimum(grey * 255 // np.maximum(alpha, 1), 255).astype(np.uint8)
    return straight


def _palette(image: Image.Image, colours: tuple[int, ...]) -> Image.Image:
    if not colours or len(colours) % 3:
        raise DamagedError(f"a colour map of {len(colours)} values")
    table: Array = np.array(colours, np.int64).reshape(3, -1).T
    # Some programs write values of 8 bits where the format asks for 16.
    table = table if table.max() < 256 else table >> 8
    indexes = image.getchannel("P") if image.mode == "PA" else image
    rgb = apply_palette(indexes, table.astype(np.uint8).tobytes())
    if image.mode == "PA":
        rgb.putalpha(image.getchannel("A"))
    return rgb
