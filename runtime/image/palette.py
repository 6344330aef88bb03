"""Images of palette indexes."""

import numpy as np
from PIL import Image

from mvlm.runtime.image.rows import Array, map_rows

_ENTRIES = 256


def apply_palette(indexes: Image.Image, colours: bytes, alpha: bytes = b"") -> Image.Image:
    """Look up the colour of each pixel.

    Args:
        indexes: Mode ``P`` or ``L``, whose values are indexes.
        colours: Red, green and blue of each entry. An index past the last one is black and opaque,
            as libpng and browsers show it.
        alpha: Opacity of the first entries; the others are opaque.
    """
    table = palette_table(colours, alpha)
    mode = "RGBA" if table.shape[1] == 4 else "RGB"
    return map_rows(indexes, mode, lambda band: table[band])


def palette_table(colours: bytes, alpha: bytes = b"") -> Array:
    """Return the table of :func:`apply_palette`: (256, 3) uint8, or (256, 4) with `alpha`."""
    entries = np.frombuffer(colours[: 3 * _ENTRIES], np.uint8).reshape(-1, 3)
    opacity = np.frombuffer(alpha[:_ENTRIES], np.uint8)
    table = np.zeros((_ENTRIES, 3), np.uint8)
    table[: len(entries)] = entries
    if not alpha:
        return table
    column = np.full((_ENTRIES, 1), 255, np.uint8)
    column[: len(opacity), 0] = opacity
    return np.hstack([table, column])
