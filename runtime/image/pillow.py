"""Decoding by Pillow of files that were reduced to what makes the visible image."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from PIL import Image, ImageFile

from mvlm.runtime.image.faults import CutShortError, DamagedError

# Texts of Pillow's errors that stand for a file that ends too early.
_CUT_SHORT = ("truncated", "Truncated", "not enough image data", "EOF")


def decode(
    plugin: Callable[[io.BytesIO], ImageFile.ImageFile],
    stream: bytes,
    *,
    before_load: Callable[[ImageFile.ImageFile], None] | None = None,
    setting: AbstractContextManager[object] | None = None,
) -> Image.Image:
    """Decode all pixels of a file.

    The class of the format is called instead of ``Image.open``, which hides the reason why a file
    is refused.

    Args:
        plugin: Pillow's class for the format.
        stream: The file.
        before_load: Called between reading the header and decoding.
        setting: Entered meanwhile.

    Raises:
        CutShortError: Pillow found too few pixels.
        DamagedError: Any other error of Pillow's.
    """
    with setting or nullcontext():
        try:
            image = plugin(io.BytesIO(stream))
            if before_load:
                before_load(image)
            image.load()
        except (MemoryError, Image.DecompressionBombError):
            raise
        except Exception as error:  # Decoders raise nearly anything on damaged files.
            text = str(error) or type(error).__name__
            is_cut = any(words in text for words in _CUT_SHORT)
            raise (CutShortError if is_cut else DamagedError)(text) from error
    return image
