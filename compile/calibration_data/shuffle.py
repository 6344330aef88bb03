"""A random order of many items, of which only the first few will be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def shuffled(count: int, rng: Random) -> Iterator[int]:
    """Yield the numbers below `count` in random order.

    Fisher and Yates' shuffle, which remembers only the numbers that have changed places: memory
    grows with what is taken, not with `count`. Random.random is the one method whose sequence
    Python promises to keep.
    """
    moved: dict[int, int] = {}
    for index in range(count):
        other = index + int(rng.random() * (count - index))
        displaced = moved.pop(index, index)
        if other == index:
            yield displaced
        else:
            yield moved.get(other, other)
            moved[other] = displaced
