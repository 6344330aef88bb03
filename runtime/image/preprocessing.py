"""From an RGB image to the numbers that the vision tower reads.

MobileVLM's training pads an image to a square with the mean colour, or crops it; resizes it
bicubically on 8-bit values; and normalises it. The results are those of
``transformers.CLIPImageProcessor``, bit by bit.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image.spec import ImageSpec

# A canvas is filled in bands of about this many pixels, 4 bytes each.
_BAND_PIXELS = 4_000_000
# Cropping first enlarges the longer edge by the aspect ratio; this bounds that image.
_MAX_CROP_ASPECT = 100


def preprocess(image: Image.Image, spec: ImageSpec) -> npt.NDArray[np.float32]:
    """Compute the vision tower's input from an image.

    The same numbers as the official ``process_images`` with ``CLIPImageProcessor``, but a long
    image needs no square canvas of its longer edge: memory grows with ``longer edge x size``.

    Args:
        image: An image; modes other than ``RGB`` are converted as Pillow does.
        spec: What the tower expects.

    Returns:
        ``pixel_values`` (1, 3, size, size), float32.

    Raises:
        ImageError: The image is empty, or too long to be cropped (over 100:1).
    """
    if 0 in image.size:
        raise ImageError("the image is empty", found=f"{image.width}x{image.height} pixels")
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    square = _pad(rgb, spec) if spec.aspect == "pad" else _crop(rgb, spec)
    # The processor multiplies in float64 and rounds once; dividing would differ in the last bit.
    unit = (np.asarray(square).astype(np.float64) * (1 / 255)).astype(np.float32)
    normalised = (unit - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _pad(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Pad to a square and resize it to ``(size, size)``.

    Pillow resizes rows first, then columns, and rounds to 8 bits between the two. So the rows can
    be resized before the square is complete, and the square itself is never made.
    """
    size, side = spec.size, max(image.size)
    if image.width == image.height:
        return _resize(image, size, size)
    columns = Image.new("RGB", (size, side), spec.background)
    if image.width > image.height:
        columns.paste(_resize(image, size, image.height), (0, (side - image.height) // 2))
        return _resize(columns, size, size)
    left = (side - image.width) // 2
    rows_per_band = max(1, _BAND_PIXELS // side)
    for top in range(0, side, rows_per_band):
        bottom = min(top + rows_per_band, side)
        band = Image.new("RGB", (side, bottom - top), spec.background)
        band.paste(image.crop((0, top, image.width, bottom)), (left, 0))
        columns.paste(_resize(band, size, bottom - top), (0, top))
    return _resize(columns, size, size)


def _crop(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Resize the shorter edge to `size` and keep the centre."""
    shorter, longer = sorted(image.size)
    if longer > shorter * _MAX_CROP_ASPECT:
        raise ImageError(
            "the image is too long to be cropped to a square",
            expected=f"an aspect ratio of at most {_MAX_CROP_ASPECT}:1",
            found=f"{image.width}x{image.height}",
        )
    resized_longer = int(spec.size * longer / shorter)
    is_tall = image.width <= image.height
    width, height = (spec.size, resized_longer) if is_tall else (resized_longer, spec.size)
    left, top = (width - spec.size) // 2, (height - spec.size) // 2
    return _resize(image, width, height).crop((left, top, left + spec.size, top + spec.size))
