"""Models and what is noted of them, for the tests of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from mvlm.runtime.model import Model
from mvlm.runtime.sampling import Sampler
from tests.artifacts import ArtifactCache
from tests.runtime.engine.asking import CHUNK, CONTEXT, FAMILY, Floats, Sampled


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    """Prefills in chunks of 512."""
    return Model(artifact_cache.artifact(FAMILY))


@pytest.fixture(scope="module")
def chunked(artifact_cache: ArtifactCache) -> Model:
    """The same model, in chunks of 7, and with a context of three pages, the last one short."""
    return Model(artifact_cache.artifact(FAMILY, prefill_chunk=CHUNK, context=CONTEXT))


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Sampled:
    """The logits that tokens are chosen from, from now on."""
    found, sample = Sampled(), Sampler.sample

    def noted(sampler: Sampler, logits: Floats, *tokens: Any) -> int:
        found.note(sampler, logits)
        return sample(sampler, logits, *tokens)

    monkeypatch.setattr(Sampler, "sample", noted)
    return found
