"""What an image shows: the vocabulary of shapes and colours, and how a random scene is arranged.

A scene lives in the *padded square*, the image after the model's preprocessing has padded it to
a square: x runs from 0 (left) to 1 (right) and y from 0 (top) to 1 (bottom). The image itself
is the centred rectangle `width` x `height` in it; its longer side is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
MAX_SHAPES = 4

#: One shape is bigger than another only if its span and the root of its area both are, by this
#: factor: whoever measures a star by its points and whoever measures it by its ink must agree.
SIZE_RATIO = 1.2


@dataclass(frozen=True)
class Shape:
    """One shape of a scene. Lengths are fractions of the padded square's side.

    `outline` holds the corners relative to the centre of the inscribed circle, which is what
    `inradius` is the radius of: scaling the outline about that centre moves all edges inwards
    by the same distance. (`x`, `y`) is the middle of the bounding box.
    """

    kind: str
    colour: str
    x: float
    y: float
    span: float
    area: float
    inradius: float = 0.0
    outline: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in SHAPES:
            raise ValueError(f"unknown shape {self.kind!r}: expected one of {', '.join(SHAPES)}")
        if self.colour not in COLOURS:
            raise ValueError(
                f"unknown colour {self.colour!r}: expected one of {', '.join(COLOURS)}"
            )

    @property
    def name(self) -> str:
        """Colour and kind, as in "red circle"."""
        return f"{self.colour} {self.kind}"

    def is_bigger_than(self, other: Shape) -> bool:
        """Whether it is bigger beyond doubt (see `SIZE_RATIO`)."""
        return self.span > SIZE_RATIO * other.span and math.sqrt(
            self.area
        ) > SIZE_RATIO * math.sqrt(other.area)


@dataclass(frozen=True)
class Scene:
    """The shapes of one image and the image's extent in the padded square."""

    width: float
    height: float
    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if not 0 < min(self.width, self.height) <= max(self.width, self.height) <= 1:
            raise ValueError(f"width and height must lie in (0, 1]: {self.width}, {self.height}")
        if len(self.shapes) > MAX_SHAPES:
            raise ValueError(f"at most {MAX_SHAPES} shapes fit a scene, got {len(self.shapes)}")

    def in_image(self, shape: Shape) -> tuple[float, float]:
        """The shape's place as fractions of the image's own width and height."""
        return (
            (shape.x - 0.5) / self.width + 0.5,
            (shape.y - 0.5) / self.height + 0.5,
        )


def random_scene(rng: np.random.Generator) -> Scene:
    """Draws a scene: how many shapes, which, how big and where. Shapes never touch."""
    width, height = _random_extent(rng)
    count = int(rng.choice(MAX_SHAPES + 1, p=(0.015, 0.165, 0.27, 0.29, 0.26)))
    names = _random_names(count, rng)
    for _ in range(50):
        places = (
            _in_line(count, width, height, rng)
            if rng.random() < 0.3
            else (_scattered(count, width, height, rng))
        )
        if places is not None:
            break
    else:
        places, names = [], []
    shapes = [
        _random_shape(kind, colour, place, rng)
        for (kind, colour), place in zip(names, places, strict=True)
    ]
    return Scene(width, height, tuple(shapes))


def _random_extent(rng: np.random.Generator) -> tuple[float, float]:
    """The image's sides: often a usual format, else anything up to 1 : 3.3."""
    if rng.random() < 0.6:
        short = float(rng.choice((1.0, 1.0, 3 / 4, 2 / 3, 9 / 16, 0.8, 0.5)))
    else:
        short = float(np.exp(rng.uniform(math.log(0.3), 0.0)))
    return (1.0, short) if rng.random() < 0.6 else (short, 1.0)


def _random_names(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Kinds and colours; people mostly draw things that differ, so two in three scenes do."""
    style = rng.random()
    distinct_colours, distinct_kinds = style < 0.67, style < 0.33
    colours = rng.choice(len(COLOURS), count, replace=not distinct_colours)
    kinds = rng.choice(len(SHAPES), count, replace=not distinct_kinds)
    return [(SHAPES[k], COLOURS[c]) for k, c in zip(kinds, colours, strict=True)]


Place = tuple[float, float, float]  # x, y and the radius of the circle that holds the shape


def _scattered(
    count: int, width: float, height: float, rng: np.random.Generator
) -> list[Place] | None:
    """Places anywhere in the image that keep clear of each other, or None if they do not fit."""
    short = min(width, height)
    biggest = min(0.46 * short, {1: 0.42, 2: 0.30, 3: 0.25}.get(count, 0.22))
    common = rng.uniform(0.045, biggest) if rng.random() < 0.25 else None
    places: list[Place] = []
    for _ in range(count):
        for _ in range(30):
            drawn = math.exp(rng.uniform(math.log(0.042), math.log(biggest)))
            radius = common if common is not None else drawn
            margin = radius + 0.004
            x = 0.5 + rng.uniform(-1, 1) * (width / 2 - margin)
            y = 0.5 + rng.uniform(-1, 1) * (height / 2 - margin)
            gap = rng.choice((0.01, 0.03))
            if all(math.hypot(x - px, y - py) > radius + pr + gap for px, py, pr in places):
                places.append((x, y, radius))
                break
        else:
            return None
    return places


def _in_line(
    count: int, width: float, height: float, rng: np.random.Generator
) -> list[Place] | None:
    """A tidy row, column or two-by-two grid with shapes of nearly one size."""
    if count < 2:
        return _scattered(count, width, height, rng)
    form = rng.choice(("row", "column", "grid")) if count > 2 else rng.choice(("row", "column"))
    columns, rows = {"row": (count, 1), "column": (1, count), "grid": (2, 2)}[str(form)]
    cell = min(width / columns, height / rows)
    if cell < 0.1:
        return None
    cells = [((c + 0.5) / columns, (r + 0.5) / rows) for r in range(rows) for c in range(columns)]
    order = rng.permutation(len(cells))[:count] if form == "grid" else range(count)
    base = rng.uniform(0.25, 0.48) * cell
    spread = rng.choice((0.0, 0.35))
    places = []
    for index in order:
        radius = max(0.042, base * (1 - spread * rng.random()))
        slack = max(0.0, cell / 2 - radius) * 0.8
        x = 0.5 + (cells[index][0] - 0.5) * width + rng.uniform(-1, 1) * slack * 0.3
        y = 0.5 + (cells[index][1] - 0.5) * height + rng.uniform(-1, 1) * slack * 0.3
        places.append((x, y, radius))
    return places


def _random_shape(kind: str, colour: str, place: Place, rng: np.random.Generator) -> Shape:
    """A shape of that kind inside the circle `place`, upright in half of the cases."""
    x, y, radius = place
    corners, inradius = _outline(kind, rng)
    if rng.random() < 0.5:
        turn = 0.0
    elif rng.random() < 0.3:
        turn = float(rng.choice((90, 180, 270, 45)))
    else:
        turn = float(rng.uniform(0, 360))
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    upright = corners
    corners = corners @ np.array([[cos, sin], [-sin, cos]])
    low, high = corners.min(0), corners.max(0)
    middle = (low + high) / 2
    scale = radius / float(np.hypot(*(corners - middle).T).max())
    spans = upright.max(0) - upright.min(0)
    following = np.roll(corners, -1, 0)
    area = 0.5 * abs(
        float(np.sum(corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]))
    )
    return Shape(
        kind,
        colour,
        x,
        y,
        span=float(spans.max()) * scale,
        area=area * scale**2,
        inradius=inradius * scale,
        outline=tuple(
            (float(px), float(py)) for px, py in np.concatenate([corners, middle[None]]) * scale
        ),
    )


def _outline(kind: str, rng: np.random.Generator) -> tuple[Array, float]:
    """Corners (n, 2) around the inscribed circle's centre, y downwards, and its radius."""
    if kind == "circle":
        return _ring(np.ones(72), 0.0), 1.0
    if kind == "square":
        return np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]), 1.0
    if kind == "star":
        points = int(rng.choice((5, 6, 4), p=(0.86, 0.09, 0.05)))
        inner = rng.uniform(0.36, 0.5) if points < 6 else rng.uniform(0.45, 0.6)
        corners = _ring(np.tile((1.0, inner), points), -math.pi / 2)
        edge = corners[1] - corners[0]
        distance = abs(float(corners[0, 0] * edge[1] - corners[0, 1] * edge[0]))
        return corners, distance / float(np.hypot(*edge))
    return _triangle(rng)


def _ring(radii: Array, start: float) -> Array:
    angles = start + np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _triangle(rng: np.random.Generator) -> tuple[Array, float]:
    """Equilateral mostly; else isosceles or right-angled."""
    form = rng.random()
    if form < 0.5:
        height, apex = math.sqrt(3), 0.0
    elif form < 0.85:
        height, apex = rng.uniform(1.3, 2.3), 0.0
    else:
        height, apex = rng.uniform(1.4, 2.0), float(rng.choice((-1.0, 1.0)))
    a, b, c = np.array([[apex, -height], [1.0, 0.0], [-1.0, 0.0]])
    sides = np.array([np.hypot(*(b - c)), np.hypot(*(c - a)), np.hypot(*(a - b))])
    centre = (sides[0] * a + sides[1] * b + sides[2] * c) / sides.sum()
    inradius = 2.0 * height / float(sides.sum())  # 2 * area / perimeter, with area = height
    return np.stack([a, b, c]) - centre, inradius
