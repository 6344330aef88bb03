"""``chat.json``: what the runtime must know of a model besides its code and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.runtime.artifact.json_object import JsonObject, build, read_json_object
from mvlm.runtime.artifact.layout import CHAT, MAX_CONTEXT
from mvlm.runtime.image import ImageSpec

_MAX_WIDTH = 1 << 20
_CACHE_DTYPES = ("float32", "float16", "int8")
_MAX_CACHE_EXTENT = 1 << 10
_MAX_CACHE_TENSORS = 8


@dataclass(frozen=True)
class PageTensor:
    """One tensor of a page of the KV cache, in one layer: its dtype and shape."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _CACHE_DTYPES:
            raise ValueError(f"the KV cache has the dtype {self.dtype!r}")
        if not self.shape or any(not 1 <= extent <= _MAX_WIDTH for extent in self.shape):
            fix = "; an older mvlm made it: compile it again" if 0 in self.shape else ""
            raise ValueError(f"the KV cache has the shape {self.shape}{fix}")

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class CacheSpec:
    """The KV cache: for every layer, a pool of pages of these tensors.

    Attributes:
        layers: Of the decoder.
        page_size: Positions of a page.
        tensors: One page's, of one layer.
    """

    layers: int
    page_size: int
    tensors: tuple[PageTensor, ...]

    def __post_init__(self) -> None:
        for name, value in (("layers", self.layers), ("page_size", self.page_size)):
            if not 1 <= value <= _MAX_CACHE_EXTENT:
                raise ValueError(f"the KV cache has {name} {value}")
        if not 1 <= len(self.tensors) <= _MAX_CACHE_TENSORS:
            raise ValueError(f"the KV cache has {len(self.tensors)} tensors")

    def nbytes(self, positions: int) -> int:
        """Bytes of the pages that `positions` take."""
        page = sum(tensor.nbytes for tensor in self.tensors)
        return -(-positions // self.page_size) * page * self.layers


@dataclass(frozen=True)
class ChatSettings:
    """A model's text and image conventions.

    Attributes:
        template: Name of the chat template (see `template`).
        bos: Id that starts every prompt.
        eos: Ids that end an answer.
        legacy_tokenizer: Whether text after a special token is encoded as on its own.
        vocabulary: Rows of the embedding table, a bound for ids.
        hidden: Width of an embedding.
        context: Positions that the model was trained for.
        prefill_chunk: Positions that one call of ``prefill`` takes at the most.
        image: How an image becomes pixels, or None for a model of text only.
        image_tokens: Positions that an image takes.
        cache: What the KV cache is made of.
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
    cache: CacheSpec

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
    document = read_json_object(folder / CHAT)
    return build(document.where, lambda: _parse(document))


def _parse_cache(document: JsonObject) -> CacheSpec:
    return CacheSpec(
        layers=document.get("layers", int),
        page_size=document.get("page_size", int),
        tensors=tuple(
            PageTensor(tensor.get("dtype", str), tensor.list_of("shape", int))
            for tensor in document.children("tensors")
        ),
    )


def _parse(document: JsonObject) -> ChatSettings:
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
        cache=_parse_cache(document.child("cache")),
    )
