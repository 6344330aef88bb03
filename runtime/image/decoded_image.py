"""What the modules of formats hand to :mod:`~mvlm.runtime.image.load`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

CheckSize: TypeAlias = Callable[[tuple[int, int]], None]
"""Raises if an image of this width and height is not to be decoded."""

UPRIGHT = 1


@dataclass(frozen=True)
class DecodedImage:
    """The visible image of a file.

    Attributes:
        pixels: Mode ``RGB``, or ``RGBA`` with alpha that is not multiplied into the colours.
        orientation: As in EXIF, 1 to 8: how `pixels` are to be turned.
    """

    pixels: Image.Image
    orientation: int = UPRIGHT
