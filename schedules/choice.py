"""What a kernel leaves open: numbers within what it can do, each with a default.

A kernel's builder asks for each number once, whatever the others are, as ``choose("rows", 4,
among=(1, 2, 4))``. So the builder itself is the description of its design space: given
:func:`by_default` it makes the kernel that is used where nothing has been tuned, given a
:class:`Recorder` it tells the space, and given :class:`Chosen` it makes one point of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Choose(Protocol):
    """Answers a builder's questions."""

    def __call__(self, name: str, default: int, among: Sequence[int]) -> int:
        """Return one of the numbers.

        Args:
            name: What is chosen; unique within a kernel.
            default: The number by default. It is one of them.
            among: The numbers that the kernel can take.
        """


@dataclass(frozen=True)
class Knob:
    """One dimension of a kernel's design space.

    Attributes:
        name: What is chosen.
        values: What it can be, rising.
        default: What it is where nothing has been tuned.
    """

    name: str
    values: tuple[int, ...]
    default: int


def by_default(name: str, default: int, among: Sequence[int]) -> int:
    """Choose the default of everything."""
    assert default in among, f"{name}: {default} is none of {among}"
    return default


class Recorder:
    """Chooses the defaults, and remembers what was asked."""

    def __init__(self) -> None:
        self.knobs: list[Knob] = []

    def __call__(self, name: str, default: int, among: Sequence[int]) -> int:
        """Return the default."""
        assert all(known.name != name for known in self.knobs), f"{name} is asked for twice"
        self.knobs.append(Knob(name, tuple(sorted(set(among))), default))
        return by_default(name, default, among)


class Chosen:
    """Chooses given numbers, and the default of what is not given.

    Args:
        values: The numbers by name.
    """

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = values

    def __call__(self, name: str, default: int, among: Sequence[int]) -> int:
        """Return the given number.

        Raises:
            ValueError: The kernel cannot take it.
        """
        value = self._values.get(name, default)
        if value not in among:
            raise ValueError(f"{name} is {value}, but must be one of {sorted(set(among))}")
        return value
