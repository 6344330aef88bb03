"""Work on an image by bands of rows, so that what is in between needs little memory."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Array: TypeAlias = npt.NDArray[Any]

_BAND_PIXELS = 2_000_000


def bands(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the row after the last of each band, from top to bottom."""
    rows = max(1, _BAND_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def map_rows(source: Image.Image, mode: str, change: Callable[[Array], Array]) -> Image.Image:
    """Return an image of `mode` whose pixels `change` computes from those of `source`.

    Args:
        source: The image; `change` gets bands of it, (rows, width) or (rows, width, channels).
        mode: ``L``, ``RGB`` or ``RGBA``.
        change: Returns uint8, (rows, width) or (rows, width, channels).
    """
    return build_rows(
        source.size,
        mode,
        lambda top, bottom: change(np.asarray(source.crop((0, top, source.width, bottom)))),
    )


def build_rows(
    size: tuple[int, int], mode: str, compute: Callable[[int, int], Array]
) -> Image.Image:
    """Return an image of `mode` whose rows ``compute(top, bottom)`` returns as uint8."""
    width, height = size
    result = Image.new(mode, size)
    for top, bottom in bands(width, height):
        result.paste(Image.fromarray(np.ascontiguousarray(compute(top, bottom))), (0, top))
    return result
