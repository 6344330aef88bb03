"""Three ways from an outline to pixels, each as some drawing program does it.

A raster gives masks of 8-bit coverage (mode ``L``) for a window of the image, so that a large
image costs no more than its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tests.examination.outlines import Disc, Outline, Points

Window = tuple[int, int, int, int]  # left, top, right, bottom
_FINER = 4


@dataclass(frozen=True)
class Raster:
    """How areas and lines become pixels.

    Attributes:
        fill: The enclosed area.
        line: The outline, as a line of that width in pixels.
    """

    fill: Callable[[Outline, Window], Image.Image]
    line: Callable[[Outline, float, Window], Image.Image]


def window_of(shape: Outline, margin: float, canvas: tuple[int, int]) -> Window:
    """The pixels that a figure can reach with a line of twice the margin."""
    left, top, right, bottom = shape.box
    spare = math.ceil(margin) + 2
    return (
        max(0, math.floor(left) - spare),
        max(0, math.floor(top) - spare),
        min(canvas[0], math.ceil(right) + spare),
        min(canvas[1], math.ceil(bottom) + spare),
    )


def _blank(window: Window, finer: int = 1) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    size = ((window[2] - window[0]) * finer, (window[3] - window[1]) * finer)
    mask = Image.new("L", size)
    return mask, ImageDraw.Draw(mask)


def _crisp_fill(shape: Outline, window: Window) -> Image.Image:
    mask, draw = _blank(window)
    local = shape.moved(-window[0], -window[1])
    if isinstance(local, Disc):
        draw.ellipse([round(value) for value in local.box], fill=255)
    else:
        draw.polygon([(round(x), round(y)) for x, y in local.points], fill=255)
    return mask


def _crisp_line(shape: Outline, width: float, window: Window) -> Image.Image:
    mask, draw = _blank(window)
    local = shape.moved(-window[0], -window[1])
    thickness = max(1, round(width))
    if isinstance(local, Disc):
        draw.ellipse([round(value) for value in local.box], outline=255, width=thickness)
    else:
        points = [(round(x), round(y)) for x, y in local.points]
        draw.line([*points, points[0], points[1]], fill=255, width=thickness, joint="curve")
    return mask


def _finer_fill(shape: Outline, window: Window) -> Image.Image:
    mask, draw = _blank(window, _FINER)
    points = (shape.corners() - window[:2]) * _FINER
    draw.polygon([(x, y) for x, y in points.tolist()], fill=255)
    return mask.reduce(_FINER)


def _finer_line(shape: Outline, width: float, window: Window) -> Image.Image:
    mask, draw = _blank(window, _FINER)
    points = [(x, y) for x, y in ((shape.corners() - window[:2]) * _FINER).tolist()]
    pen = max(2, round(width * _FINER))
    # A closed path ends where it began; an open one, as a hand draws it, is left open.
    gap = math.dist(points[0], points[-1])
    path = points if 0 < gap < pen * 3 and len(points) > 100 else [*points, points[0]]
    draw.line(path, fill=255, width=pen, joint="curve")
    for x, y in (path[0], path[-1], *(points if len(points) < 20 else ())):
        draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return mask.reduce(_FINER)


def _distance(shape: Outline, window: Window) -> npt.NDArray[np.float64]:
    """Distance of each pixel's middle to the outline, negative inside."""
    y, x = np.mgrid[window[1] : window[3], window[0] : window[2]] + 0.5
    if isinstance(shape, Disc):
        return np.asarray(np.hypot(x - shape.x, y - shape.y) - shape.radius)
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in _edges(shape.points):
        dx, dy = bx - ax, by - ay
        share = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clip(0, 1)
        np.minimum(nearest, (x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2, out=nearest)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * dx / dy)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def _edges(points: Points) -> list[tuple[list[float], list[float]]]:
    return list(zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True))


def _covered(distance: npt.NDArray[np.float64]) -> Image.Image:
    """The share of a pixel on the inner side of an edge at that distance."""
    return Image.fromarray(np.rint((0.5 - distance).clip(0, 1) * 255).astype(np.uint8))


#: Whole pixels, drawn straight with Pillow.
CRISP = Raster(_crisp_fill, _crisp_line)
#: Drawn four times as large with Pillow, then averaged.
FINER = Raster(_finer_fill, _finer_line)
#: The exact distance to the edge gives each pixel's coverage, as vector programs do it.
COVERAGE = Raster(
    lambda shape, window: _covered(_distance(shape, window)),
    lambda shape, width, window: _covered(np.abs(_distance(shape, window)) - width / 2),
)
