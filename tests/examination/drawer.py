"""Draws images as strangers would, each in one of six styles, with the truth about it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from PIL import Image

from tests.examination.backgrounds import BACKGROUNDS, background, tones
from tests.examination.outlines import Box, Outline, outline, wobbly
from tests.examination.palettes import PALETTES, RGB, difference
from tests.examination.rasters import COVERAGE, CRISP, FINER, Raster, window_of
from tests.examination.truth import COLOURS, SHAPES, Figure, Truth

STYLES = ("crisp", "smooth", "vector", "bordered", "hollow", "sketched")

_LEAST_SIDE, _MOST_SIDE = 60, 2000
_USUAL_ASPECTS = (1, 1, 5 / 4, 4 / 3, 3 / 2, 16 / 9)
#: A figure's size: at least these shares of the image's shorter and longer side, and pixels.
_LEAST_SIZE = (0.10, 0.07, 14)
#: At most this share of the shorter side, by the number of figures.
_MOST_SIZE = {1: 0.45, 2: 0.45, 3: 0.40, 4: 0.35}
#: A line is at least so wide, as a share of the image's longer side, and in pixels.
_LEAST_LINE = (0.004, 1.5)
#: How different from its background a filled figure, or a line, must look.
_CLEAR_AREA, _CLEAR_LINE = 35, 55


@dataclass(frozen=True)
class Drawing:
    """An image as a file, and what it shows.

    Attributes:
        data: The bytes of a PNG or JPEG file.
        truth: What is in it.
        traits: What the drawing is like: its ``style``, ``background``, ``format``, ``palette``.
    """

    data: bytes
    truth: Truth
    traits: dict[str, str]


@dataclass(frozen=True)
class _Look:
    """How all figures of one image are drawn.

    Attributes:
        raster: From outlines to pixels.
        filled: Whether figures are filled.
        line: The line's width as a share of the figure's size; 0 is no line.
        ink: The line's colour; None is the figure's own.
        wobble: How far the hand strays, as a share of the figure's size.
    """

    raster: Raster
    filled: bool
    line: float = 0
    ink: RGB | None = None
    wobble: float = 0


def drawings(count: int, seed: int = 0) -> Iterator[Drawing]:
    """Draws `count` images, styles and backgrounds in turn; the same ones for the same seed."""
    for index in range(count):
        style = STYLES[index % len(STYLES)]
        ground = BACKGROUNDS[index // len(STYLES) % len(BACKGROUNDS)]
        yield _draw(style, ground, Random(f"{seed}/{index}"))


def _draw(style: str, ground: str, rng: Random) -> Drawing:
    look = _look(style, rng)
    size = _image_size(rng)
    names = _names(rng)
    spots = _spots(len(names), size, rng)
    palette, colours, back = _colours(ground, names, look, rng)
    canvas = background(ground, back, size, rng)
    figures = []
    for (colour, kind), (x, y, span) in zip(names, spots, strict=True):
        plain = outline(kind, rng, line_only=not look.filled).moved(x, y, span)
        width = look.line and max(look.line * span, _LEAST_LINE[0] * max(size), _LEAST_LINE[1])
        box = _paint(canvas, plain, colours[colour], look, width, rng)
        figures.append(Figure(kind, colour, *box, plain.area))
    data, form = _encode(canvas, rng)
    traits = {"style": style, "background": ground, "format": form, "palette": palette}
    return Drawing(data, Truth(*size, tuple(figures)), traits)


def _look(style: str, rng: Random) -> _Look:
    if style == "crisp":
        return _Look(CRISP, filled=True)
    if style == "smooth":
        return _Look(FINER, filled=True)
    if style == "vector":
        return _Look(COVERAGE, filled=True)
    raster = rng.choice((CRISP, FINER, COVERAGE))
    if style == "bordered":
        ink = rng.choice(((0, 0, 0), (0, 0, 0), (51, 51, 51), (60, 40, 20)))
        return _Look(raster, filled=True, line=rng.uniform(0.02, 0.08), ink=ink)
    # Evenly among the ratios, so that thin lines are as frequent as thick ones.
    line = math.exp(rng.uniform(math.log(0.02), math.log(0.15)))
    if style == "hollow":
        return _Look(raster, filled=False, line=line)
    filled = rng.random() < 0.4
    return _Look(FINER, filled, max(0.03, line / 2), wobble=rng.uniform(0.008, 0.025))


def _image_size(rng: Random) -> tuple[int, int]:
    """Sides from 60 to 2,000 pixels, from 1 : 3 to 3 : 1."""
    usual = rng.random() < 0.5
    aspect = rng.choice(_USUAL_ASPECTS) if usual else math.exp(rng.uniform(0, math.log(3)))
    longer = math.exp(rng.uniform(math.log(_LEAST_SIDE * aspect), math.log(_MOST_SIDE)))
    sides = round(longer), max(_LEAST_SIDE, round(longer / aspect))
    return sides if rng.random() < 0.6 else (sides[1], sides[0])


def _names(rng: Random) -> list[tuple[str, str]]:
    """Colours and kinds of one to four figures; no two quite equal in most images."""
    count = rng.choices((1, 2, 3, 4), (2, 3, 3, 2))[0]
    if rng.random() < 0.3:
        few = rng.sample(COLOURS, 2), rng.sample(SHAPES, 2)
        return [(rng.choice(few[0]), rng.choice(few[1])) for _ in range(count)]
    return rng.sample([(colour, kind) for colour in COLOURS for kind in SHAPES], count)


def _spots(count: int, size: tuple[int, int], rng: Random) -> list[tuple[float, float, float]]:
    """Middles and sizes, in pixels, of figures that do not touch each other or the border."""
    short, long = min(size), max(size)
    least = max(_LEAST_SIZE[0] * short, _LEAST_SIZE[1] * long, _LEAST_SIZE[2])
    most = _MOST_SIZE[count] * short
    alike = rng.random() < 0.25
    common = rng.uniform(least, most)
    tries = 0
    while True:
        spots: list[tuple[float, float, float]] = []
        for _ in range(count):
            span = common if alike else rng.uniform(least, most)
            edge = span / 2 * 1.15 + 2
            x, y = (rng.uniform(edge, side - edge) for side in size)
            if all(_apart((x, y, span), spot) for spot in spots):
                spots.append((x, y, span))
        if len(spots) == count:
            return spots
        tries += 1
        if tries % 50 == 0:  # too crowded: smaller figures
            most = max(least, most * 0.9)
            common = min(common, most)


def _apart(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether two boxes, with their lines and a gap, stay clear of each other."""
    least = (one[2] + other[2]) / 2 * 1.2 + 3
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) > least


def _colours(
    ground: str, names: list[tuple[str, str]], look: _Look, rng: Random
) -> tuple[str, dict[str, RGB], tuple[RGB, ...]]:
    """A palette and a background on which all wanted colours show clearly."""
    clear = _CLEAR_AREA if look.filled else _CLEAR_LINE
    while True:
        palette = rng.choice(list(PALETTES))
        colours = {colour: PALETTES[palette][colour] for colour, _ in names}
        back = tones(ground, rng)
        pairs = [(colour, tone) for colour in colours.values() for tone in back]
        if all(difference(colour, tone) >= clear for colour, tone in pairs):
            return palette, colours, back


def _paint(
    canvas: Image.Image, shape: Outline, colour: RGB, look: _Look, width: float, rng: Random
) -> Box:
    """Draws one figure; the box of what was drawn."""
    drawn: Outline = wobbly(shape, rng, look.wobble) if look.wobble else shape
    window = window_of(drawn, width / 2, canvas.size)
    if look.filled:
        canvas.paste(colour, window, look.raster.fill(drawn, window))
    if look.line:
        canvas.paste(look.ink or colour, window, look.raster.line(drawn, width, window))
    left, top, right, bottom = drawn.box
    half = width / 2
    return left - half, top - half, right + half, bottom + half


def _encode(canvas: Image.Image, rng: Random) -> tuple[bytes, str]:
    """The image as a PNG file, or as a JPEG file of some quality."""
    file = io.BytesIO()
    if rng.random() < 0.5:
        canvas.save(file, "PNG", compress_level=1)
        return file.getvalue(), "png"
    quality = rng.randint(50, 95)
    canvas.save(file, "JPEG", quality=quality)
    return file.getvalue(), "jpeg below 75" if quality < 75 else "jpeg from 75"
