"""Outlines of the four kinds of figure, as different people would draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Disc:
    """A circle."""

    x: float
    y: float
    radius: float

    @property
    def box(self) -> Box:
        """Left, top, right, bottom."""
        return (
            self.x - self.radius,
            self.y - self.radius,
            self.x + self.radius,
            self.y + self.radius,
        )

    @property
    def area(self) -> float:
        """The enclosed area."""
        return math.pi * self.radius**2

    def moved(self, x: float, y: float, scale: float = 1) -> Disc:
        """Scaled about the origin, then shifted."""
        return Disc(self.x * scale + x, self.y * scale + y, self.radius * scale)

    def corners(self) -> Points:
        """Enough points on the circle to look round, ``(n, 2)``."""
        angles = np.linspace(0, 2 * math.pi, 180, endpoint=False)
        return np.stack(
            [self.x + self.radius * np.cos(angles), self.y + self.radius * np.sin(angles)], axis=1
        )


@dataclass(frozen=True, eq=False)
class Polygon:
    """A closed polygon; its lines may cross, as those of a pentagram do.

    Attributes:
        points: The corners ``(n, 2)`` in drawing order.
    """

    points: Points

    @property
    def box(self) -> Box:
        """Left, top, right, bottom."""
        (left, top), (right, bottom) = self.points.min(axis=0), self.points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    @property
    def area(self) -> float:
        """The enclosed area by the shoelace formula; of a pentagram, its inner pentagon twice."""
        x, y = self.points.T
        return float(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2)

    def moved(self, x: float, y: float, scale: float = 1) -> Polygon:
        """Scaled about the origin, then shifted."""
        return Polygon(self.points * scale + (x, y))

    def corners(self) -> Points:
        """The corners ``(n, 2)``."""
        return self.points


Outline = Disc | Polygon


def outline(kind: str, rng: Random, line_only: bool = False) -> Outline:
    """An outline whose box has a longer side of 1 and its middle at the origin.

    Args:
        kind: One of the four kinds.
        rng: Decides on proportions and the angle.
        line_only: Nothing will be filled, so that a star may be a pentagram of five lines.
    """
    if kind == "circle":
        return Disc(0, 0, 0.5)
    makers = {"square": _square, "triangle": _triangle}
    points = makers[kind](rng) if kind in makers else _star(rng, line_only)
    low, high = points.min(axis=0), points.max(axis=0)
    return Polygon((points - (low + high) / 2) / (high - low).max())


def wobbly(shape: Outline, rng: Random, amount: float) -> Polygon:
    """The outline as a hand draws it: lines that bend, and do not quite meet where they began.

    Args:
        shape: What is meant.
        rng: Decides on the bends.
        amount: How far the hand strays, as a share of the figure's size.
    """
    left, top, right, bottom = shape.box
    reach = amount * max(right - left, bottom - top)
    path = _dense(shape.corners(), 160)
    turn = np.linspace(0, 2 * math.pi, len(path))
    stray = np.zeros_like(path)
    for axis in range(2):
        for waves in (1, 2, 3, 5, 8):
            phase, strength = rng.uniform(0, 2 * math.pi), rng.uniform(-1, 1) / waves**0.5
            # A wave of a whole number of turns closes; this share of a turn more does not.
            stray[:, axis] += strength * np.sin((waves + rng.uniform(-0.05, 0.05)) * turn + phase)
    return Polygon(path + stray * reach / 1.5)


def _square(rng: Random) -> Points:
    # A square turned further might be called a diamond.
    angle = 0.0 if rng.random() < 0.6 else rng.uniform(-15, 15)
    return _turned(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float), angle)


def _triangle(rng: Random) -> Points:
    form = rng.choice(("equilateral", "isosceles", "isosceles", "right"))
    height = {"equilateral": math.sqrt(3) / 2, "isosceles": rng.uniform(0.7, 1.4)}.get(
        form, rng.uniform(0.7, 1.4)
    )
    apex = 0.0 if form == "right" else 0.5
    angle = rng.choice((0, 0, 0, 180, rng.uniform(0, 360)))
    return _turned(np.array([(0, 0), (1, 0), (apex, -height)], float), angle)


def _star(rng: Random, line_only: bool) -> Points:
    rays = 6 if rng.random() < 0.1 else 5
    angle = 0.0 if rng.random() < 0.6 else rng.uniform(0, 360)
    if line_only and rays == 5 and rng.random() < 0.2:
        return _turned(_on_circle(5, 1.0)[[0, 2, 4, 1, 3]], angle)
    inner = rng.uniform(0.36, 0.5) if rays == 5 else rng.uniform(0.48, 0.58)
    points = np.empty((2 * rays, 2))
    points[::2] = _on_circle(rays, 1.0)
    points[1::2] = _on_circle(rays, inner, half=True)
    return _turned(points, angle)


def _on_circle(count: int, radius: float, half: bool = False) -> Points:
    """Points spread evenly, the first at the top, or half a step after it."""
    angles = (np.arange(count) + (0.5 if half else 0)) * 2 * math.pi / count
    return radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _turned(points: Points, degrees: float) -> Points:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: Points = points @ np.array([(cos, sin), (-sin, cos)])
    return turned


def _dense(corners: Points, count: int) -> Points:
    """About `count` points along the closed outline, its corners among them."""
    following = np.roll(corners, -1, axis=0)
    lengths = np.linalg.norm(following - corners, axis=1)
    parts = [
        begin + np.linspace(0, 1, max(1, round(count * length / lengths.sum())), endpoint=False)[
            :, None
        ] * (end - begin)
        for begin, end, length in zip(corners, following, lengths, strict=True)
    ]  # fmt: skip
    return np.concatenate([*parts, corners[:1]])
