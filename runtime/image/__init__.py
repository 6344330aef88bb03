"""Images: from a file to the numbers that the vision tower reads.

:func:`load_image` turns what a user has (a phone photo, a screenshot, a scan) into an upright RGB
image, and treats the file as untrusted until it is decoded. :func:`preprocess` computes what
MobileVLM computes in training.

Four things differ from the official command line, which calls ``Image.open(...).convert("RGB")``:

- A photo is turned upright by its EXIF orientation; the official code shows it lying on its side.
- Transparent pixels are composited on white. The official code drops the alpha channel, and so
  shows colours that nobody sees, mostly black. ``load_image(..., background=None)`` does the same.
- Grey of more than 8 bits is scaled to 8 bits; the official code clips it, mostly to white.
- Metadata is not read, apart from the orientation. Where it is damaged or large, the official code
  refuses an image whose pixels are intact.

Colour profiles and gamma values are ignored by both.

A module for each format (:mod:`~mvlm.runtime.image.png`, ...) finds what makes the visible image.
Pillow gets a new file that holds only that. BMP and PNM are decoded here, because Pillow reads some
of them wrongly.
"""

from mvlm.runtime.image.formats import FORMATS
from mvlm.runtime.image.limits import DEFAULT_LIMITS, ImageLimits
from mvlm.runtime.image.load import load_image
from mvlm.runtime.image.preprocessing import preprocess
from mvlm.runtime.image.spec import WHITE, Colour, ImageSpec

__all__ = [
    "DEFAULT_LIMITS",
    "FORMATS",
    "WHITE",
    "Colour",
    "ImageLimits",
    "ImageSpec",
    "load_image",
    "preprocess",
]
