"""The configuration space of a kernel: its knobs, each with a set of values and a default.

A kernel's builder reads every knob exactly once, independently of the others, as ``knob("tile_m",
4, values=(1, 2, 4))``. The builder therefore defines its own configuration space. Called with
:func:`default_config`, it builds the kernel that is used where nothing has been tuned; called with
a :class:`SpaceRecorder`, it records the space; called with a :class:`FixedConfig`, it builds the
kernel of one configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Config(Protocol):
    """Gives a builder the value of each knob."""

    def __call__(self, name: str, default: int, values: Sequence[int]) -> int:
        """Return the value of a knob.

        Args:
            name: Of the knob; unique within a kernel.
            default: The value where nothing has been tuned, one of `values`.
            values: The values that the kernel supports.
        """


@dataclass(frozen=True)
class Knob:
    """One dimension of a kernel's configuration space.

    Attributes:
        name: Of the knob.
        values: The values that the kernel supports, ascending.
        default: The value where nothing has been tuned.
    """

    name: str
    values: tuple[int, ...]
    default: int


def default_config(name: str, default: int, values: Sequence[int]) -> int:
    """Return the default of every knob."""
    assert default in values, f"{name}: {default} is none of {values}"
    return default


class SpaceRecorder:
    """Returns the defaults, and records every knob that is read."""

    def __init__(self) -> None:
        self.knobs: list[Knob] = []

    def __call__(self, name: str, default: int, values: Sequence[int]) -> int:
        """Return the default."""
        assert all(known.name != name for known in self.knobs), f"the knob {name} is read twice"
        self.knobs.append(Knob(name, tuple(sorted(set(values))), default))
        return default_config(name, default, values)


class FixedConfig:
    """Returns given values, and the defaults of all other knobs.

    Args:
        config: Values by the name of the knob.
    """

    def __init__(self, config: Mapping[str, int]) -> None:
        self._config = config

    def __call__(self, name: str, default: int, values: Sequence[int]) -> int:
        """Return the given value.

        Raises:
            ValueError: The kernel does not support it.
        """
        value = self._config.get(name, default)
        if value not in values:
            raise ValueError(f"{name} is {value}, but must be one of {sorted(set(values))}")
        return value


def divisors(extent: int, values: Iterable[int]) -> tuple[int, ...]:
    """Return those of a knob's values that divide an extent."""
    return tuple(each for each in values if extent % each == 0)
