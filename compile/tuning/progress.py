"""How far a run of the tuner is: what the live table shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TaskProgress:
    """One task's.

    Attributes:
        name: The task's name.
        calls: Its calls in a turn.
        trials: Measurements in this run.
        default_seconds: Of the default; None before it was measured.
        best_seconds: Of the best so far; the default's included.
        verdict: What came of it at the end: the gain, 0 where the default stays; None before.
    """

    name: str
    calls: int
    trials: int
    default_seconds: float | None
    best_seconds: float | None
    verdict: float | None


@dataclass(frozen=True)
class Progress:
    """A run's.

    Attributes:
        step: What is being done: ``defaults``, ``search``, ``compare``.
        done: How much of it.
        total: Of how much.
        tasks: All tasks, in their order.
        devices: How many devices are at work.
        seconds_left: A guess of how long the search still takes; None before there is one.
    """

    step: str
    done: int
    total: int
    tasks: tuple[TaskProgress, ...]
    devices: int
    seconds_left: float | None


class Observer(Protocol):
    """Watches a run."""

    def progress(self, progress: Progress) -> None:
        """Take note of how far it is."""

    def note(self, text: str) -> None:
        """Take note of something that people should know; from any thread."""


class Silent:
    """Watches nothing."""

    def progress(self, progress: Progress) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
