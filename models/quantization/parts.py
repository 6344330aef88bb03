"""How the parts of a model are stored."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import cast

from mvlm.models.quantization.schemes import DEFAULT_SCHEME, Scheme, check_storage, find_scheme
from mvlm.models.rounding import ROUNDINGS, Rounding
from mvlm.runtime.errors import UsageError


@dataclass(frozen=True)
class Quantization:
    """How a model and its KV cache are stored; :func:`plan_quantization` makes it.

    Attributes:
        language: Of the decoder's layers.
        embedding: Of its embedding table.
        head: Of its output head.
        vision: Of tower and projector.
        cache: The storage of keys and values (see `models.cache_layout`).
    """

    language: Scheme
    embedding: Scheme
    head: Scheme
    vision: Scheme
    cache: str

    def names(self) -> dict[str, str]:
        """Return the names by part."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {part: getattr(chosen, "name", chosen) for part, chosen in parts.items()}


def plan_quantization(
    language: str = DEFAULT_SCHEME,
    *,
    embedding: str | None = None,
    head: str | None = None,
    vision: str | None = None,
    cache: str | None = None,
    rounding: str | None = None,
) -> Quantization:
    """Settle the schemes of all parts.

    Args:
        language: The scheme of the decoder's layers.
        embedding: Of the embedding table; what goes with `language` if None.
        head: Of the output head; what goes with `language` if None.
        vision: Of tower and projector; what goes with `language` if None.
        cache: The storage of the KV cache; what goes with `language` if None.
        rounding: How scales are chosen in all parts; each scheme's own way if None.

    Raises:
        UsageError: A name is unknown.
    """
    if rounding is not None and rounding not in ROUNDINGS:
        raise UsageError("unknown rounding", expected=" or ".join(ROUNDINGS), found=repr(rounding))

    def scheme(name: str) -> Scheme:
        found = find_scheme(name)
        return found if rounding is None else replace(found, rounding=cast(Rounding, rounding))

    layers = scheme(language)
    return Quantization(
        language=layers,
        embedding=scheme((layers.embedding or language) if embedding is None else embedding),
        head=scheme((layers.head or language) if head is None else head),
        vision=scheme(layers.vision if vision is None else vision),
        cache=check_storage(layers.cache if cache is None else cache),
    )
