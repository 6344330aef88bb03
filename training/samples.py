"""Draws the sample images that come with the model: `python -m mvlm.training.samples`.

They are drawn for people to look at, by Pillow at four times their size, not by the training
generator.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw

SCALE = 4
Point = tuple[float, float]


def _polygon(x: float, y: float, radii: list[float], start: float) -> list[Point]:
    step = 2 * math.pi / len(radii)
    return [
        (SCALE * (x + r * math.cos(start + i * step)), SCALE * (y + r * math.sin(start + i * step)))
        for i, r in enumerate(radii)
    ]


def _circle(x: float, y: float, r: float) -> tuple[float, float, float, float]:
    return SCALE * (x - r), SCALE * (y - r), SCALE * (x + r), SCALE * (y + r)


def _star(x: float, y: float, r: float) -> list[Point]:
    return _polygon(x, y, [r, 0.42 * r] * 5, -math.pi / 2)


def _canvas(width: int, height: int, colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width * SCALE, height * SCALE), colour)
    return image, ImageDraw.Draw(image)


def demo() -> Image.Image:
    """A red circle, a blue square, a yellow star and a green triangle on white."""
    image, draw = _canvas(640, 480, "#ffffff")
    draw.ellipse(_circle(165, 165, 105), fill="#e53935")
    draw.polygon(_polygon(480, 130, [105] * 4, math.pi / 4), fill="#1e63d0")
    draw.polygon(_star(180, 375, 75), fill="#fdd835")
    draw.polygon(_polygon(475, 370, [85] * 3, -math.pi / 2), fill="#2e9e44")
    return image


def outlines() -> Image.Image:
    """An orange square above a purple circle, both outlined, on dark grey, upright format."""
    image, draw = _canvas(360, 600, "#20242c")
    corners = _polygon(180, 170, [130] * 4, math.pi / 4)
    draw.line([*corners, corners[0], corners[1]], fill="#ff9800", width=14 * SCALE, joint="curve")
    draw.ellipse(_circle(180, 430, 70), outline="#ab47bc", width=12 * SCALE)
    return image


def night() -> Image.Image:
    """A big yellow star and two small blue circles on a pale blue wide image."""
    image, draw = _canvas(800, 320, "#d7e6f5")
    draw.polygon(_star(160, 165, 125), fill="#fbc02d")
    draw.ellipse(_circle(440, 110, 48), fill="#1746a2")
    draw.ellipse(_circle(660, 220, 48), fill="#1746a2")
    return image


IMAGES = {"demo.png": demo, "outlines.png": outlines, "wide.png": night}


def write(folder: Path) -> None:
    """Writes all images as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in IMAGES.items():
        large = draw()
        size = (large.width // SCALE, large.height // SCALE)
        small = large.resize(size, Image.Resampling.LANCZOS)
        small.quantize(64, dither=Image.Dither.NONE).convert("RGB").save(
            folder / name, optimize=True
        )


def main() -> None:
    """Parses the command line and writes the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models/bundled/images"))
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
