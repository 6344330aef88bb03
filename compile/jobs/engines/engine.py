"""What the coordinator asks of an engine."""

from __future__ import annotations

from typing import Protocol

from mvlm.compile.jobs.step import StepOutcome, StepRequest


class Engine(Protocol):
    """Does steps, several at once. Results go to the store; an engine only says how it went."""

    @property
    def description(self) -> str:
        """What it is, for people."""

    def refusal(self, memory: int) -> str:
        """Say why a step of so many bytes can never be done here; empty where it can."""

    def has_room(self, memory: int) -> bool:
        """Whether a step of so many bytes can be started now."""

    def start(self, request: StepRequest, attempt: int, memory: int) -> None:
        """Start a step.

        Args:
            request: The step.
            attempt: How often it was begun, this time included.
            memory: Bytes that are set aside for it.

        Raises:
            StoreError: It cannot be started.
        """

    def wait(self, seconds: float) -> list[StepOutcome]:
        """Wait until a step ends, or so many seconds; return what has ended."""

    def stop(self) -> None:
        """End what is running, and whatever the engine itself has started."""
