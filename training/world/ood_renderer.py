"""Out-of-distribution images: scenes drawn by plain Pillow calls.

Nothing here shares code with `render`: CSS colour names, integer coordinates, whole line widths,
Pillow's own outlines, common image sizes. It measures how the model generalizes.
"""

from __future__ import annotations

import io
import math
from random import Random

from PIL import Image, ImageDraw

from mvlm.training.world.scene import COLOURS, SHAPES, Scene, Shape

_SIZES = (
    (60, 60), (64, 48), (100, 100), (128, 128), (200, 200), (224, 224), (256, 256), (320, 240),
    (400, 300), (512, 512), (300, 900), (640, 480), (480, 640), (800, 600), (1024, 768),
    (1920, 1080), (1080, 1920), (2000, 1000), (336, 336), (700, 250),
)  # fmt: skip
Colour = str | tuple[int, int, int]
_NAMES: dict[str, tuple[Colour, ...]] = {
    "red": ("red", "crimson", "firebrick", (220, 30, 30), (200, 0, 0), (255, 60, 60)),
    "green": ("green", "lime", "forestgreen", "limegreen", (0, 160, 0), (60, 180, 75)),
    "blue": ("blue", "mediumblue", "royalblue", "dodgerblue", (0, 0, 200), (40, 80, 220)),
    "yellow": ("yellow", "gold", (255, 230, 0), (240, 220, 30), (255, 255, 80)),
    "orange": ("orange", "darkorange", (255, 140, 0), (245, 130, 48), (255, 120, 0)),
    "purple": ("purple", "darkviolet", "rebeccapurple", "darkorchid", (128, 0, 128),
               (145, 30, 180)),
}  # fmt: skip
_LIGHT = ("white", "white", "whitesmoke", "lightgray", "ivory", "aliceblue", "lavender", "beige")
_DARK = ("black", (20, 20, 30), (50, 50, 50))
_MIDDLE = ("gray", "darkgray", "pink", "skyblue", "tan", "lightgreen", "khaki", "slategray", "teal")


def ood_scene(rng: Random) -> tuple[Scene, Image.Image]:
    """A scene and its image."""
    width, height = rng.choice(_SIZES)
    while True:
        ground: tuple[Colour, ...] = rng.choice((_LIGHT, _LIGHT, _DARK, _MIDDLE))
        image = Image.new("RGB", (width, height), rng.choice(ground))
        placed = _draw_all(image, rng)
        if placed is not None:
            break
    if rng.random() < 0.4:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.choice((30, 60, 75, 90)))
        image = Image.open(buffer).convert("RGB")
    longest = max(width, height)
    shapes = tuple(
        Shape(
            kind, colour,
            0.5 + (x - width / 2) / longest, 0.5 + (y - height / 2) / longest,
            span / longest, area / longest**2,
        )
        for kind, colour, x, y, _, span, area in placed
    )  # fmt: skip
    return Scene(width / longest, height / longest, shapes), image


#: Kind, colour, centre, "radius", span and area in pixels.
_Placed = tuple[str, str, int, int, int, float, float]


def _draw_all(image: Image.Image, rng: Random) -> list[_Placed] | None:
    width, height = image.size
    count = rng.randint(1, 4)
    smallest = max(5, round(0.05 * max(image.size)))
    biggest = int(min(image.size) * (0.32 if count < 3 else 0.22))
    if biggest < smallest:
        biggest = smallest
    style, line = rng.choice(("fill", "fill", "outline", "both")), rng.uniform(0.08, 0.3)
    rotate = rng.random() < 0.3
    placed: list[_Placed] = []
    for _ in range(count):
        for _ in range(100):
            r = rng.randint(smallest, biggest)
            if width <= 2 * r + 2 or height <= 2 * r + 2:
                continue
            x, y = rng.randint(r + 1, width - r - 1), rng.randint(r + 1, height - r - 1)
            if all(
                max(abs(x - px), abs(y - py)) > 1.15 * (r + pr) for _, _, px, py, pr, *_ in placed
            ):
                break
        else:
            return None
        kind, colour = rng.choice(SHAPES), rng.choice(COLOURS)
        ink = Image.new("RGB", (1, 1), rng.choice(_NAMES[colour])).getpixel((0, 0))
        behind = image.getpixel((0, 0))
        assert isinstance(ink, tuple) and isinstance(behind, tuple)
        if math.dist(ink, behind) < 100:
            return None
        pen = max(1, round(max(line * r, max(image.size) / 120)))
        turn = rng.uniform(0, 360) if rotate else 0.0
        _draw_one(ImageDraw.Draw(image), kind, ink, (x, y, r), style, pen, turn, rng)
        placed.append((kind, colour, x, y, r, *_measure(kind, r, turn)))
    return placed


def _draw_one(
    draw: ImageDraw.ImageDraw, kind: str, ink: tuple[int, ...], place: tuple[int, int, int],
    style: str, pen: int, turn: float, rng: Random,
) -> None:  # fmt: skip
    x, y, r = place
    fill = None if style == "outline" else ink
    outline = None if style == "fill" else ink
    if style == "both":
        outline, pen = (
            rng.choice(((0, 0, 0), (0, 0, 0), (255, 255, 255), (70, 70, 70))),
            max(1, pen // 2),
        )
    if kind == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=pen)
    elif kind == "square" and not turn:
        draw.rectangle((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=pen)
    else:
        corners = _corner_points(kind, x, y, r, turn)
        if fill is not None:
            draw.polygon(corners, fill=fill)
        if outline is not None:
            draw.line([*corners, corners[0], corners[1]], fill=outline, width=pen, joint="curve")


def _measure(kind: str, r: int, turn: float) -> tuple[float, float]:
    """Upright span and area of what `_draw_one` draws with "radius" r."""
    if kind == "circle" or (kind in ("square", "triangle") and not turn):
        share = {"circle": math.pi, "square": 4.0, "triangle": 2.0}[kind]
        return 2.0 * r, share * r * r
    span, share = {"square": (2**0.5, 2.0), "triangle": (3**0.5, 1.3), "star": (1.9, 1.23)}[kind]
    return span * r, share * r * r


def _corner_points(kind: str, x: int, y: int, r: int, turn: float) -> list[tuple[float, float]]:
    if kind == "triangle" and not turn:
        return [(x, y - r), (x + r, y + r), (x - r, y + r)]
    number = {"square": 4, "triangle": 3, "star": 10}[kind]
    start = math.radians(turn) - (math.pi / 4 if kind == "square" else math.pi / 2)
    return [
        (
            x
            + r
            * (0.42 if kind == "star" and i % 2 else 1)
            * math.cos(start + 2 * math.pi * i / number),
            y
            + r
            * (0.42 if kind == "star" and i % 2 else 1)
            * math.sin(start + 2 * math.pi * i / number),
        )
        for i in range(number)
    ]
