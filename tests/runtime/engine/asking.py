"""Requests for the tests of the engine, and what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request
from mvlm.runtime.engine.image_encoder import ImageEncoder, image_digest
from mvlm.runtime.engine.positions import ImageEmbedding
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import Sampler, SamplingParams

Floats = npt.NDArray[np.float32]

# Grouped KV heads, and 4 positions an image.
FAMILY = "linear"
CHUNK = 7
CONTEXT = 130
PAGE = 64
VOCABULARY = 384
IMAGE_TOKENS = 4
# More than any test's requests take together: an engine that needs them all is stuck.
MOST_STEPS = 20_000


class Sampled:
    """The logits that samplers chose from, in turn."""

    def __init__(self) -> None:
        self.rows: dict[Sampler, list[Floats]] = {}
        self.last: Floats = np.zeros(0, np.float32)

    def note(self, sampler: Sampler, logits: Floats) -> None:
        self.last = logits.copy()
        self.rows.setdefault(sampler, []).append(self.last)


def prompt(length: int, seed: int = 0) -> list[int]:
    """Random tokens behind a BOS; those of a seed begin alike, whatever their length."""
    return [1, *np.random.default_rng(seed).integers(3, VOCABULARY, length - 1).tolist()]


def pixels(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((1, 3, 28, 28), np.float32)


def greedy(tokens: int = 1) -> SamplingParams:
    return SamplingParams(max_tokens=tokens)


def ask(
    engine: Engine, ids: Sequence[int], *images: Floats, tokens: int = 1, **options: Any
) -> Answer:
    """Ask for a greedy answer and compute it."""
    (answer,) = engine.submit(Request(ids, images, greedy(tokens), **options))
    assert list(engine.tokens(answer)) == answer.tokens
    return answer


def alone(model: Model, request: Request, context: int | None = None) -> list[int]:
    """The tokens of an answer that an engine of its own computes, without drafts."""
    engine = Engine(model, EngineSettings(context=context, speculate="off"))
    (answer,) = engine.submit(request)
    return list(engine.tokens(answer))


def encode(encoder: ImageEncoder, image: Floats) -> ImageEmbedding:
    """Encode an image to its end."""
    digest = image_digest(image)
    for _ in range(MOST_STEPS):
        if (found := encoder.advance(image, digest)) is not None:
            return found
    raise AssertionError("the image has no end")


def finish(engine: Engine) -> None:
    """Compute until all answers are finished; then all pages are accounted for."""
    for _ in range(MOST_STEPS):
        if engine.is_idle:
            break
        engine.step()
    check_pages(engine)


def check_pages(engine: Engine) -> None:
    """Every page is free, or held once by the prefix cache; and no page is lost by clearing it."""
    assert engine.is_idle
    assert engine.pool.free + engine.prefixes.pages == engine.pool.size
    assert engine.prefixes.evictable == engine.prefixes.pages
    for page in engine.prefixes._blocks:
        assert engine.pool.holders(page) == 1
