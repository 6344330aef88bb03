"""What an image shows: its figures with their boxes, and what can be said of them beyond doubt.

Every comparison is true, false or None, and None means that two people could disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
Direction = Literal["left", "right", "above", "below"]
DIRECTIONS: tuple[Direction, ...] = ("left", "right", "above", "below")

#: Two figures lie beside each other if their middles are apart by this share of the distance at
#: which their boxes would just touch ...
_CLEAR_SHARE = 0.6
#: ... and by this share of the image's longer side.
_CLEAR_GAP = 0.06
#: One figure is bigger if its box's longer side and the root of its area both are, by this factor.
_CLEAR_RATIO = 1.3


@dataclass(frozen=True)
class Figure:
    """One figure: lengths in pixels, y downwards, `area` of what its outline encloses."""

    kind: str
    colour: str
    left: float
    top: float
    right: float
    bottom: float
    area: float

    def __post_init__(self) -> None:
        if self.kind not in SHAPES or self.colour not in COLOURS:
            raise ValueError(f"no such figure: {self.colour} {self.kind}")
        if not (self.left < self.right and self.top < self.bottom):
            raise ValueError(f"an empty box: {self}")

    @property
    def name(self) -> str:
        """Colour and kind, as in "red circle"."""
        return f"{self.colour} {self.kind}"

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of the box."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return max(self.right - self.left, self.bottom - self.top)


@dataclass(frozen=True)
class Truth:
    """The figures of an image of `width` x `height` pixels."""

    width: int
    height: int
    figures: tuple[Figure, ...]

    def lies(self, one: Figure, direction: Direction, other: Figure) -> bool | None:
        """Whether `one` lies to that side of `other`."""
        axis = 0 if direction in ("left", "right") else 1
        along = other.middle[axis] - one.middle[axis]
        if direction in ("right", "below"):
            along = -along
        sides = [(f.right - f.left, f.bottom - f.top)[axis] for f in (one, other)]
        touching = sum(sides) / 2
        if abs(along) < max(_CLEAR_SHARE * touching, _CLEAR_GAP * max(self.width, self.height)):
            return None
        return along > 0

    def is_bigger(self, one: Figure, other: Figure) -> bool | None:
        """Whether `one` is bigger than `other`."""
        for first, second, verdict in ((one, other, True), (other, one, False)):
            roots = math.sqrt(first.area) > _CLEAR_RATIO * math.sqrt(second.area)
            if roots and first.size > _CLEAR_RATIO * second.size:
                return verdict
        return None

    def others(self, figure: Figure) -> list[Figure]:
        """All figures but this one."""
        return [other for other in self.figures if other is not figure]

    def called(self, phrase: str) -> list[Figure]:
        """The figures that "circle", "red" or "red circle" fits."""
        words = phrase.split()
        return [f for f in self.figures if all(word in (f.kind, f.colour) for word in words)]

    def names_of(self, figure: Figure) -> list[str]:
        """The phrases among those that fit this figure and no other."""
        phrases = (figure.name, figure.kind, figure.colour)
        return [phrase for phrase in phrases if self.called(phrase) == [figure]]

    def place(self, figure: Figure) -> tuple[float, float]:
        """The middle as shares of the image's width and height."""
        x, y = figure.middle
        return x / self.width, y / self.height
