"""TIFF 6.0 and BigTIFF: the tags that make the visible image of the first page.

The file is decoded by libtiff after its first directory has been replaced by one that holds only
these tags. What Pillow would read wrongly is declared there in another way, and put right here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from mvlm.runtime.image.exif import valid_orientation
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError
from mvlm.runtime.image.grey import scale_table, stretch_to_8_bit
from mvlm.runtime.image.palette import apply_palette
from mvlm.runtime.image.pillow import decode
from mvlm.runtime.image.rows import Array, map_rows
from mvlm.runtime.image.tiff_directory import Directory, Tag, read_directory
from mvlm.runtime.image.visible import CheckSize, Visible

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE = 0, 1, 3
_ASSOCIATED, _UNASSOCIATED = 1, 2
_UNSIGNED = 1


@dataclass(frozen=True)
class _Samples:
    """How a file stores its samples, as its tags say."""

    photometric: int
    bits: tuple[int, ...]
    kind: int  # SampleFormat: 1 unsigned, 2 signed, 3 float
    extra: tuple[int, ...]
    compression: int
    planes: int

    def __str__(self) -> str:
        return (
            f"photometric interpretation {self.photometric}, bits {self.bits},"
            f" sample format {self.kind}, extra samples {self.extra},"
            f" compression {self.compression}, planar configuration {self.planes}"
        )


def read(data: bytes, check_size: CheckSize) -> Visible:
    """Read the first page of a TIFF.

    Raises:
        UnreadableError: The file is damaged, cut short, or of a kind of TIFF that is not read.
    """
    directory = read_directory(data)
    size = directory.number(Tag.WIDTH), directory.number(Tag.HEIGHT)
    if None in size or 0 in size:
        raise DamagedError(f"a size of {size[0]}x{size[1]}")
    check_size((size[0] or 0, size[1] or 0))
    samples = _samples(directory)
    image = _decode(directory, samples)
    pixels = _colour(image, samples, directory)
    return Visible(pixels, valid_orientation(directory.number(Tag.ORIENTATION)))


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
    stream = _rewritten(directory, samples).to_file()
    try:
        return decode(TiffImageFile, stream, setting=_by_libtiff())
    except DamagedError as error:
        if str(error) == "unknown pixel mode":
            raise UnsupportedError(f"a TIFF of {samples}") from error
        if directory.is_cut_short():
            raise CutShortError("the end of the file inside of the pixels") from error
        raise


@contextmanager
def _by_libtiff() -> Iterator[None]:
    """Let libtiff decode all files: Pillow reads 16-bit planes and uncompressed YCbCr wrongly.

    The setting belongs to the whole process; images are decoded one at a time.
    """
    before = TiffImagePlugin.READ_LIBTIFF
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        yield
    finally:
        TiffImagePlugin.READ_LIBTIFF = before


def _is_deep_grey(samples: _Samples) -> bool:
    is_grey = samples.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    return is_grey and len(samples.bits) == 1 and samples.bits[0] > 8


def _is_grey_with_more(samples: _Samples) -> bool:
    is_grey = samples.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    return is_grey and samples.bits == (8, 8)


def _rewritten(directory: Directory, samples: _Samples) -> Directory:
    """Return the directory as Pillow is to see it."""
    changes: dict[int, int] = {}
    if _is_deep_grey(samples) or _is_grey_with_more(samples):
        changes[Tag.PHOTOMETRIC] = _BLACK_IS_ZERO
    if _is_grey_with_more(samples):
        changes[Tag.EXTRA_SAMPLES] = _UNASSOCIATED
    return replace(directory.without(Tag.ORIENTATION), changes=changes)


def _colour(image: Image.Image, samples: _Samples, directory: Directory) -> Image.Image:
    """Return `image` as ``RGB`` or ``RGBA``."""
    is_inverted = samples.photometric == _WHITE_IS_ZERO
    if _is_deep_grey(samples):
        return _deep_grey(image, samples, is_inverted).convert("RGB")
    if _is_grey_with_more(samples):
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
