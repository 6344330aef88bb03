"""Schemes: how matrices are stored, and what they are multiplied with."""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.models.quantization.formats import (
    FLOAT16,
    FLOAT32,
    Q3NL,
    Q4MLC,
    Q4NL,
    Q8,
    Q16,
    Activations,
    WeightFormat,
)
from mvlm.models.rounding import Rounding
from mvlm.runtime.errors import UsageError


@dataclass(frozen=True)
class Scheme:
    """How a part of the model is stored and computed.

    Attributes:
        name: The scheme's name on the command line.
        weights: How matrices are stored.
        activations: What they are multiplied with.
        rounding: How a scale is chosen for each group, unless the user says otherwise.
        groups_per_scale: How many groups of quantized activations share a scale, at most.
        vision: The scheme that goes with it for tower and projector, unless the user names one.
        embedding: The same for the embedding table; its own where this is None.
        head: The same for the output head.
        cache: How the KV cache is stored with it, unless the user says otherwise.
    """

    name: str
    weights: WeightFormat
    activations: Activations = "float32"
    rounding: Rounding = "nearest"
    groups_per_scale: int = 1
    vision: str = "q0f16"
    embedding: str | None = None
    head: str | None = None
    cache: str = "float16"


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f32", FLOAT32, vision="q0f32", cache="float32"),
        Scheme("q0f16", FLOAT16),
        Scheme("q16a16", Q16, "int16", vision="q16a16"),
        Scheme("q8a8", Q8, "int8", vision="q16a16", cache="int8"),
        # Rounded as mlc-llm rounds, so that both make the same file of a checkpoint.
        Scheme("q4f16_1", Q4MLC),
        *(
            Scheme(
                name,
                weights,
                "int8",
                "search",
                groups_per_scale=8,
                vision="q16a16",
                # A head of 4 bits costs more than half as much as all the layers' 4 bits, for a
                # twentieth of a 1.7B's bytes.
                embedding="q8a8",
                head="q8a8",
                cache="int8",
            )
            for name, weights in (("q4a8", Q4NL), ("q3a8", Q3NL))
        ),
    )
}
DEFAULT_SCHEME = "q4a8"

# What keys and values may be stored as (see `models.cache_layout`).
CACHE_STORAGES = ("float32", "float16", "int8")


def find_scheme(name: str) -> Scheme:
    """Return the scheme of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in SCHEMES:
        raise UsageError(
            "unknown quantization",
            expected=" or ".join(SCHEMES),
            found=repr(name),
        )
    return SCHEMES[name]


def check_storage(storage: str) -> str:
    """Return the name of a storage.

    Raises:
        UsageError: It is unknown.
    """
    if storage not in CACHE_STORAGES:
        raise UsageError(
            "unknown storage of the KV cache",
            expected=" or ".join(CACHE_STORAGES),
            found=repr(storage),
        )
    return storage


def fit_groups_per_scale(groups: int, most: int) -> int:
    """Return how many of a row's groups share a scale: as many as divide them, at most `most`."""
    return max(count for count in range(1, most + 1) if groups % count == 0)
