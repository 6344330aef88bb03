"""``chat.json``: what the runtime must know of a model besides its code and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mvlm.runtime.artifact.document import Document, build, read_document
from mvlm.runtime.artifact.layout import CHAT, MAX_CONTEXT
from mvlm.runtime.image import ImageSpec

_MAX_WIDTH = 1 << 20


@dataclass(frozen=True)
class ChatSettings:
    """A model's text and picture conventions.

    Attributes:
        template: Name of the chat template (see `template`).
        bos: Id that starts every prompt.
        eos: Ids that end an answer.
        legacy_tokenizer: Whether text after a special token is encoded as on its own.
        vocabulary: Rows of the embedding table, a bound for ids.
        hidden: Width of an embedding.
        context: Positions that the model was trained for.
        prefill_chunk: Positions that one call of ``prefill`` takes at the most.
        image: How a picture becomes pixels, or None for a model of text only.
        image_tokens: Positions that a picture takes.
    """

    template: str
    bos: int
    eos: tuple[int, ...]
    legacy_tokenizer: bool
    vocabulary: int
    hidden: int
    context: int
    prefill_chunk: int
    image: ImageSpec | None
    image_tokens: int

    def __post_init__(self) -> None:
        most = MAX_CONTEXT if self.image is not None else 0
        bounds = {
            "vocabulary": (self.vocabulary, 1, 1 << 24),
            "hidden": (self.hidden, 1, _MAX_WIDTH),
            "context": (self.context, 2, MAX_CONTEXT),
            "prefill_chunk": (self.prefill_chunk, 1, MAX_CONTEXT),
            "bos": (self.bos, 0, self.vocabulary - 1),
            "image_tokens": (self.image_tokens, min(1, most), most),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, outside {low} to {high}")
        if not self.eos or any(not 0 <= token < self.vocabulary for token in self.eos):
            raise ValueError(f"eos is {self.eos}, not ids of the vocabulary")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        image = None if self.image is None else self.image.to_json()
        return asdict(self) | {"eos": list(self.eos), "image": image}


def read_settings(folder: Path) -> ChatSettings:
    """Read an artifact's ``chat.json``.

    Raises:
        ArtifactError: It breaks the format.
    """
    document = read_document(folder / CHAT)
    return build(document.where, lambda: _parse(document))


def _parse(document: Document) -> ChatSettings:
    image: Mapping[str, Any] | None = document.values.get("image")
    return ChatSettings(
        template=document.get("template", str),
        bos=document.get("bos", int),
        eos=document.list_of("eos", int),
        legacy_tokenizer=document.get("legacy_tokenizer", bool),
        vocabulary=document.get("vocabulary", int),
        hidden=document.get("hidden", int),
        context=document.get("context", int),
        prefill_chunk=document.get("prefill_chunk", int),
        image=None if image is None else ImageSpec.from_json(document.get("image", dict)),
        image_tokens=document.get("image_tokens", int),
    )
