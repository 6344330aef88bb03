r"""How a conversation becomes a prompt: chat templates as data, and their rendering.

A prompt is a sequence of *segments*: texts, and markers for what no text can spell (an image, the
end of an answer). Because the markers are not text, nothing that a user types can become one. The
one exception is ``<image>`` in a question that comes with images, and :class:`Turn` alone reads it.

The template of MobileVLM is vicuna v1 (the official ``conv_vicuna_v1``)::

    {system} USER: <image>\n{question} ASSISTANT: {answer}<end>USER: {question} ASSISTANT:

Rendering is incremental: :meth:`ChatTemplate.render_next` gives exactly what
:meth:`ChatTemplate.render` would append for one more turn, so that a session keeps the earlier
turns in its KV cache.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mvlm.runtime.errors import PromptError

IMAGE_PLACEHOLDER = "<image>"


class Marker(enum.Enum):
    """A part of a prompt that is not text."""

    IMAGE = "image"
    """The tokens of the next image."""
    EOS = "eos"
    """The end-of-sequence token, which ends an answer."""


Segment: TypeAlias = str | Marker


@dataclass(frozen=True)
class Turn:
    """A question, the images shown with it, and the answer if there is one yet.

    Where the images go is settled once, when the turn is made: if the question holds no
    ``<image>``, in front of it. If it holds one ``<image>`` for each image, there. Without images,
    ``<image>`` is ordinary text. Nothing that happens to the conversation later changes that; in
    particular, `inherited_images` do not turn the ``<image>`` of a question into a place.

    Attributes:
        question: The user's text, taken as it is.
        images: How many images are shown with it.
        answer: The assistant's text. White space around it is dropped, but for plain completion.
        inherited_images: How many of the images belonged to dropped turns. They are the first
            ones, and are shown in front of the question; the others were given with it.
        parts: The question as texts and :attr:`Marker.IMAGE` where it places an image.
        leading_images: How many images are shown in front of `parts`.

    Raises:
        PromptError: The question is blank, or holds another number of ``<image>`` than there are
            images given with it.
    """

    question: str
    images: int = 0
    answer: str | None = None
    inherited_images: int = 0
    parts: tuple[Segment, ...] = field(init=False, repr=False, compare=False)
    leading_images: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.images < 0:
            raise PromptError("images of a turn", expected="0 or more", found=self.images)
        if not 0 <= self.inherited_images <= self.images:
            raise PromptError(
                "inherited images of a turn",
                expected=f"0 to {self.images}, the number of its images",
                found=self.inherited_images,
            )
        parts = _place_images(self.question, self.images - self.inherited_images)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "leading_images", self.images - parts.count(Marker.IMAGE))
        if not any(isinstance(part, str) and part.strip() for part in parts):
            raise PromptError(
                "the prompt is empty",
                expected="a question" if not self.images else "a question about the image",
                found=repr(self.question),
            )


def _place_images(question: str, images: int) -> tuple[Segment, ...]:
    """Split a question at its placeholders, if it has one for each image; or else at none.

    Raises:
        PromptError: It has another number of them.
    """
    first, *others = question.split(IMAGE_PLACEHOLDER) if images else [question]
    if len(others) not in (0, images):
        raise PromptError(
            f"the prompt says {IMAGE_PLACEHOLDER} {_times(len(others))}",
            expected=f"{_times(images)}, or not at all",
            found=f"{images} image{'s' if images > 1 else ''}",
            fix=f"Leave {IMAGE_PLACEHOLDER} out to show the images before the question.",
        )
    parts: list[Segment] = [first]
    for text in others:
        parts += [Marker.IMAGE, text]
    return tuple(parts)


@dataclass(frozen=True)
class ChatTemplate:
    """A way of writing a conversation.

    Attributes:
        name: What an artifact's settings call it.
        roles: The names of the user and the assistant; ``None`` for plain completion, where a
            prompt is one text and there are no further turns.
        system: The text that opens a conversation.
        separator: What follows the system text and the question.
        after_image: What follows an image in front of the question.
        stop: Texts that end an answer, besides the end-of-sequence token.
    """

    name: str
    roles: tuple[str, str] | None
    system: str = ""
    separator: str = ""
    after_image: str = ""
    stop: tuple[str, ...] = ()

    @property
    def has_turns(self) -> bool:
        """Whether a conversation can go on after the first answer."""
        return self.roles is not None

    def render(self, turns: Sequence[Turn]) -> tuple[Segment, ...]:
        """Write a conversation from its start.

        Args:
            turns: At least one; all but the last have an answer. If the last has none, the prompt
                ends where the assistant is to speak; if it has one, with that answer.

        Returns:
            Segments without the beginning-of-sequence token; texts do not follow one another.

        Raises:
            PromptError: There is no turn, an earlier turn has no answer, or the template has no
                further turns.
        """
        if not turns:
            raise PromptError("the conversation is empty", expected="at least one turn")
        if any(turn.answer is None for turn in turns[:-1]):
            raise PromptError("an earlier turn has no answer", expected="one for each question")
        segments: list[Segment] = [self.system + self.separator] if self.system else []
        segments += self._turn(turns[0])
        for turn in turns[1:]:
            segments += self.render_next(turn)
        return _merge(segments)

    def render_next(self, turn: Turn) -> tuple[Segment, ...]:
        """Write what one more turn appends to a conversation whose last answer is complete.

        Raises:
            PromptError: The template has no further turns.
        """
        if not self.has_turns:
            raise PromptError(
                f"the template {self.name} holds one prompt and no conversation",
                fix="Start anew for each prompt, or choose a chat template.",
            )
        return _merge([Marker.EOS, *self._turn(turn)])

    def _turn(self, turn: Turn) -> list[Segment]:
        leading: list[Segment] = [Marker.IMAGE, self.after_image] * turn.leading_images
        question = [*leading, *turn.parts]
        if self.roles is None:
            return [*question, turn.answer or ""]
        user, assistant = self.roles
        segments: list[Segment] = [f"{user}: ", *question, f"{self.separator}{assistant}:"]
        if turn.answer is not None and turn.answer.strip():
            segments.append(f" {turn.answer.strip()}")
        return segments


VICUNA_V1 = ChatTemplate(
    name="vicuna_v1",
    roles=("USER", "ASSISTANT"),
    system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    separator=" ",
    after_image="\n",
    stop=("</s>",),
)
"""The template that MobileVLM and MobileVLM V2 were trained on."""

PLAIN = ChatTemplate(name="plain", roles=None)
"""The prompt as it is, for models that complete text; images go directly before it."""

TEMPLATES = {template.name: template for template in (VICUNA_V1, PLAIN)}


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _merge(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Join texts that follow one another, because they are tokenized as one."""
    merged: list[Segment] = []
    for segment in segments:
        previous = merged[-1] if merged else None
        if isinstance(segment, str) and isinstance(previous, str):
            merged[-1] = previous + segment
        elif segment:
            merged.append(segment)
    return tuple(merged)
