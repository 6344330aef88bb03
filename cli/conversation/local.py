"""A conversation with a model that runs on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvlm.cli.conversation.exchange import AttachedImage, Exchange, last_of
from mvlm.cli.shared.answers import speeds
from mvlm.cli.shared.images import image_bytes, image_name, load_pixels

if TYPE_CHECKING:
    from mvlm.runtime.chat import Chat
    from mvlm.runtime.completion import Completion
    from mvlm.runtime.engine import Trace
    from mvlm.runtime.generation import Generation
    from mvlm.runtime.model import FloatArray
    from mvlm.runtime.sampling import SamplingParams
    from mvlm.runtime.structured_output import Constraint


class LocalReply:
    """An answer of the local model.

    Args:
        generation: The answer in progress.
        finished: The conversation, to be told of the whole text.
    """

    def __init__(self, generation: Generation, finished: Recorder) -> None:
        self._generation, self._finished = generation, finished
        self.dropped_turns = generation.dropped_turns

    def __iter__(self) -> Iterator[str]:
        yield from self._generation
        self._finished(self._generation.completion.text)

    def cancel(self) -> None:
        """Stop after the current token."""
        self._generation.cancel()

    @property
    def completion(self) -> Completion:
        """The finished answer."""
        return self._generation.completion

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return self.completion.finish_reason

    def speeds(self) -> list[tuple[str, str]]:
        """Name and write the speeds."""
        return speeds(self.completion.stats)

    def to_json(self) -> dict[str, Any]:
        """Return the completion as plain JSON values."""
        return self.completion.to_json()


class Recorder:
    """Adds an answered question to a list of exchanges, or puts it in the place of the last one."""

    def __init__(
        self,
        exchanges: list[Exchange],
        question: str,
        images: Sequence[AttachedImage],
        replace_last: bool,
    ) -> None:
        self._exchanges, self._replace_last = exchanges, replace_last
        self._question, self._images = question, tuple(images)

    def __call__(self, answer: str) -> None:
        """Take the whole answer."""
        if self._replace_last:
            self._exchanges.pop()
        self._exchanges.append(Exchange(self._question, self._images, answer))


class LocalConversation:
    """See :class:`~mvlm.cli.conversation.conversation.Conversation`.

    Args:
        chat: The model's own view of the conversation, which is truncated where it is too long.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.exchanges: list[Exchange] = []

    @property
    def title(self) -> str:
        """The model, its scheme and its threads."""
        model = self.chat.model
        name, scheme = model.manifest.model.get("name"), model.manifest.quantization["language"]
        return f"{name} {scheme}, {model.threads} threads"

    @property
    def system(self) -> str | None:
        """The system message; None for the template's own."""
        return self.chat.system

    def set_system(self, text: str | None) -> None:
        """Set the system message; None for the template's own."""
        self.chat.set_system(text)

    def attach(self, source: Path | bytes) -> AttachedImage:
        """Read and preprocess an image.

        Raises:
            PromptError: The model reads text only.
            ImageError: The image cannot be read.
        """
        pixels = load_pixels(source, self.chat.model)
        return AttachedImage(image_name(source), image_bytes(source), pixels)

    def ask(
        self,
        question: str,
        images: Sequence[AttachedImage],
        params: SamplingParams,
        *,
        replace_last: bool = False,
        constraint: Constraint | None = None,
        trace: Trace | None = None,
    ) -> LocalReply:
        """Answer a question; `trace` records every stage.

        Raises:
            PromptError: The question cannot be answered.
            ConstraintError: The form is not understood, or too complex.
        """
        generation = self.chat.generate(
            question,
            _pixels(images),
            params,
            trace,
            constraint=constraint,
            replace_last=replace_last,
        )
        return LocalReply(generation, Recorder(self.exchanges, question, images, replace_last))

    def reading_ahead(self, images: Sequence[AttachedImage]) -> AbstractContextManager[object]:
        """Within the block, compute what the next prompt begins with in a thread."""
        from mvlm.runtime.engine.background import BackgroundSteps

        self.chat.read_ahead(_pixels(images))
        return BackgroundSteps(self.chat.engine)

    def undo(self) -> Exchange:
        """Take back the last turn.

        Raises:
            PromptError: There is none.
        """
        last_of(self.exchanges)
        self.chat.undo()
        return self.exchanges.pop()

    def reset(self) -> None:
        """Begin a new conversation."""
        self.chat.reset()
        self.exchanges.clear()

    def save(self, path: Path) -> None:
        """Write the conversation, with what the KV cache holds of it.

        Raises:
            UsageError: The file cannot be written.
        """
        self.chat.save(path)

    def load(self, path: Path) -> None:
        """Go on with a conversation that :meth:`save` wrote.

        Raises:
            UsageError: It cannot be read, or belongs to another artifact.
        """
        self.chat.load(path)
        self.exchanges = [
            Exchange(
                turn.question,
                tuple(AttachedImage("an image", pixels=pixels) for pixels in shown),
                turn.answer or "",
            )
            for turn, shown in zip(self.chat.turns, self.chat.images, strict=True)
        ]

    def close(self) -> None:
        """Do nothing: the process's end frees the model."""


def _pixels(images: Sequence[AttachedImage]) -> list[FloatArray]:
    return [image.pixels for image in images if image.pixels is not None]
