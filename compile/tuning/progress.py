"""The progress of a tuning run, for a live table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TaskProgress:
    """One task's progress.

    Attributes:
        name: The task's name.
        weight: Calls in a chat turn.
        trials: Candidates measured in this run.
        default_seconds: The default's time; None before it is measured.
        best_seconds: The best time so far, the default's included; None before it is measured.
        gain: The validated gain, 0 where the default is kept; None before the validation.
    """

    name: str
    weight: int
    trials: int
    default_seconds: float | None
    best_seconds: float | None
    gain: float | None


@dataclass(frozen=True)
class Progress:
    """A run's progress.

    Attributes:
        step: The current step: ``defaults``, ``search`` or ``validate``.
        done: Measurements or tasks of the step that are done.
        total: All measurements or tasks of the step.
        tasks: All tasks.
        devices: The number of connected devices.
        seconds_left: The estimated rest of the search; None before there is an estimate.
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
        """Handle the run's progress."""

    def note(self, text: str) -> None:
        """Handle a message for the user; called from any thread."""


class Silent:
    """Ignores progress and messages."""

    def progress(self, progress: Progress) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
