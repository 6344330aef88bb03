"""A small preview of an image: in the terminal's own pixels, or else in coloured half blocks."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from mvlm.cli.shared.inline_images import VARIABLE, Encode, inline_encoder
from mvlm.cli.shared.terminal import can_show, is_dumb, is_terminal

# Its foreground colours a cell's upper half and its background the lower one.
_HALF_BLOCK = "\u2580"
_MAX_COLUMNS = 44
_MAX_ROWS = 16
_CELL_WIDTH, _CELL_HEIGHT = 10, 20  # pixels, of a usual font

Colour = list[int]  # red, green, blue: 0 to 255


def show_preview(source: Path | bytes) -> None:
    """Draw an image as well as the terminal can, or nothing where it cannot.

    Raises:
        ImageError: The image cannot be read.
    """
    if not is_terminal(sys.stdout) or is_dumb() or os.environ.get(VARIABLE) == "off":
        return
    if "NO_COLOR" not in os.environ and (encode := inline_encoder()) is not None:
        sys.stdout.write(_inline(source, encode) + "\n")
        sys.stdout.flush()
    elif can_show(_HALF_BLOCK):
        _show_blocks(source)


def _inline(source: Path | bytes, encode: Encode) -> str:
    """Encode an image as the terminal takes it."""
    import io

    from mvlm.runtime.image import load_image

    image = load_image(source)
    image.thumbnail((_MAX_COLUMNS * _CELL_WIDTH, _MAX_ROWS * _CELL_HEIGHT))
    columns = min(max(1, round(image.width / _CELL_WIDTH)), shutil.get_terminal_size().columns)
    file = io.BytesIO()
    image.save(file, "PNG")
    return encode(file.getvalue(), columns, max(1, round(image.height / _CELL_HEIGHT)))


def _show_blocks(source: Path | bytes) -> None:
    """Draw two pixels a character cell, if there are colours."""
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
