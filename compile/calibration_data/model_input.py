"""What of a model decides how data becomes its input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mvlm.models.config import MobileVLMConfig
from mvlm.runtime.image import ImageSpec
from mvlm.runtime.template import VICUNA_V1, ChatTemplate, Segment


class PromptEncoder(Protocol):
    """What is needed of a tokenizer; :class:`mvlm.runtime.tokenizer.Tokenizer` has it."""

    @property
    def unk_id(self) -> int:
        """The id of unknown characters; negative where there is none."""

    def encode_prompt(self, segments: Iterable[Segment]) -> list[int]:
        """Ids of a prompt, the beginning of the sequence first; see ``Tokenizer``."""


@dataclass(frozen=True)
class ModelInput:
    """How a model reads text, conversations and images.

    Attributes:
        tokenizer: Its tokenizer.
        context: Positions of the longest sequence that it reads.
        template: How a conversation becomes a prompt.
        image: What its vision tower expects; None if it reads text only.
        image_tokens: Positions of the decoder that an image takes.
    """

    tokenizer: PromptEncoder
    context: int
    template: ChatTemplate = VICUNA_V1
    image: ImageSpec | None = None
    image_tokens: int = 0

    @classmethod
    def of(cls, config: MobileVLMConfig, tokenizer: PromptEncoder) -> ModelInput:
        """Return that of a checkpoint."""
        return cls(
            tokenizer=tokenizer,
            context=config.language.max_position_embeddings,
            image=config.image,
            image_tokens=config.image_tokens,
        )
