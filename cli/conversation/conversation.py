"""The protocol between the chat's loop and whatever answers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mvlm.cli.conversation.exchange import AttachedImage, Exchange
    from mvlm.runtime.sampling import SamplingParams
    from mvlm.runtime.structured_output import Constraint


class Reply(Protocol):
    """An answer in progress: iterate over its text, then ask how it went."""

    @property
    def dropped_turns(self) -> int:
        """Turns for which the context had no room; 0 where that is not known."""

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it becomes final."""

    def cancel(self) -> None:
        """Stop the answer; may be called from a signal's handler."""

    @property
    def finish_reason(self) -> str:
        """``stop``, ``length`` or ``cancelled``, once the text has ended."""

    def speeds(self) -> list[tuple[str, str]]:
        """Name and write what was measured."""

    def to_json(self) -> dict[str, Any]:
        """Return the finished answer as plain JSON values."""


class Conversation(Protocol):
    """A conversation that a person can steer."""

    @property
    def title(self) -> str:
        """What answers, in a few words."""

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """All that was said, also what the model's context has no room for any more."""

    @property
    def system(self) -> str | None:
        """The system message; None for the model's own."""

    def set_system(self, text: str | None) -> None:
        """Set the system message; None for the model's own."""

    def attach(self, source: Path | bytes) -> AttachedImage:
        """Read an image file, or its bytes, to ask about it."""

    def ask(
        self,
        question: str,
        images: Sequence[AttachedImage],
        params: SamplingParams,
        *,
        replace_last: bool = False,
        constraint: Constraint | None = None,
    ) -> Reply:
        """Answer a question, in a form; in the place of the last turn, if asked for."""

    def reading_ahead(self, images: Sequence[AttachedImage]) -> AbstractContextManager[object]:
        """Within the block, compute what the next prompt begins with."""

    def undo(self) -> Exchange:
        """Take back the last turn and return it."""

    def reset(self) -> None:
        """Begin a new conversation; the system message stays."""

    def save(self, path: Path) -> None:
        """Write the conversation to a file."""

    def load(self, path: Path) -> None:
        """Go on with the conversation of a file."""

    def close(self) -> None:
        """Give back what the conversation holds."""
