"""The official prompt, as token ids: vicuna v1, the image's place between two texts.

MobileVLM tokenizes the text on each side of `<image>` on its own (so a lone "▁" stands on both
sides) and, as LLaMA's legacy tokenization does, also the text after each `</s>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sentencepiece import SentencePieceProcessor

BOS, EOS = 1, 2
IMAGE = -200
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Prompter:
    """Turns questions and answers into ids with one SentencePiece model."""

    def __init__(self, model: bytes) -> None:
        self.pieces = SentencePieceProcessor(model_proto=model)
        self.encode = lru_cache(maxsize=200_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.pieces.encode(text))

    def before_image(self) -> tuple[int, ...]:
        """All ids in front of the image."""
        return (BOS, *self.encode(f"{SYSTEM} USER: "))

    def first_turn(self, question: str) -> tuple[int, ...]:
        """The ids between the image and the first answer."""
        return self.encode(f"\n{question} ASSISTANT:")

    def next_turn(self, question: str) -> tuple[int, ...]:
        """The ids between the `</s>` of one answer and the next answer."""
        return self.encode(f"USER: {question} ASSISTANT:")

    def text_only(self, question: str) -> tuple[int, ...]:
        """The ids of a prompt without an image."""
        return (BOS, *self.encode(f"{SYSTEM} USER: {question} ASSISTANT:"))

    def answer(self, text: str) -> tuple[int, ...]:
        """An answer's ids with the closing `</s>`.

        A piece never crosses a space, so encoding "Red." alone (with SentencePiece's dummy space
        in front) gives the ids that "ASSISTANT: Red." ends with.
        """
        return (*self.encode(text), EOS)

    def prompt(self, turns: Sequence[tuple[str, str]], question: str) -> list[int]:
        """A whole prompt with `IMAGE` where the image goes; `turns` are earlier ones."""
        questions = [asked for asked, _ in turns] + [question]
        ids = [*self.before_image(), IMAGE]
        for index, text in enumerate(questions):
            ids += self.first_turn(text) if index == 0 else self.next_turn(text)
            if index < len(turns):
                ids += self.answer(turns[index][1])
        return ids

    def spell(self, ids: Sequence[int]) -> list[str]:
        """The pieces of ids, "▁" for a space in front."""
        return [str(piece) for piece in self.pieces.id_to_piece(list(ids))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of answer ids, without special tokens and outer spaces."""
        return str(self.pieces.decode([i for i in ids if i > EOS])).strip()
