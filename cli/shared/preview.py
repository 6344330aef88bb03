"""A small preview of an image on a terminal that can show colours."""

from __future__ import annotations

import sys
from pathlib import Path

from mvlm.cli.shared.terminal import can_show, is_terminal

# Its foreground colours a cell's upper half and its background the lower one.
_HALF_BLOCK = "\u2580"
_MAX_COLUMNS = 44
_MAX_ROWS = 16

Colour = list[int]  # red, green, blue: 0 to 255


def show_preview(source: Path | bytes) -> None:
    """Draw an image with two pixels a character cell, or nothing where that is not possible.

    Raises:
        ImageError: The image cannot be read.
    """
    if not is_terminal(sys.stdout) or not can_show(_HALF_BLOCK):
        return
    from rich.color import Color
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    console = Console()
    if console.no_color or console.color_system not in ("truecolor", "256"):
        return
    drawing = Text(no_wrap=True)
    for row in _pixel_rows(source, min(_MAX_COLUMNS, console.width), _MAX_ROWS):
        for upper, lower in row:
            style = Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
            drawing.append(_HALF_BLOCK, style)
        drawing.append("\n")
    console.print(drawing, end="")


def _pixel_rows(source: Path | bytes, columns: int, rows: int) -> list[list[tuple[Colour, Colour]]]:
    """Return the colours of the upper and the lower half of each cell, row by row."""
    import numpy as np

    from mvlm.runtime.image import load_image

    image = load_image(source)
    scale = min(columns / image.width, 2 * rows / image.height)
    width = max(1, min(columns, round(image.width * scale)))
    # Whole cells: an even number of pixels.
    height = max(1, min(rows, round(image.height * scale / 2))) * 2
    pixels = np.asarray(image.resize((width, height))).tolist()
    return [list(zip(pixels[y], pixels[y + 1], strict=True)) for y in range(0, height, 2)]
