from __future__ import annotations

import numpy as np
import pytest

from mvlm.bench.measure import MeasurementPlan, measure_speeds
from mvlm.runtime.errors import UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.session import Session
from tests.artifacts import ArtifactCache


def test_measure_runs_the_plan(
    artifact_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(artifact_cache.artifact("ldpnet"), threads=1)
    prefills, steps, done = [], [], []
    plain_prefill, plain_decode = Session.prefill, Session.decode

    def counted_prefill(self, *arguments):  # type: ignore[no-untyped-def]
        prefills.append(plain_prefill(self, *arguments))
        return prefills[-1]

    def counted_decode(self, token):  # type: ignore[no-untyped-def]
        steps.append(token)
        return plain_decode(self, token)

    monkeypatch.setattr(Session, "prefill", counted_prefill)
    monkeypatch.setattr(Session, "decode", counted_decode)
    pixels = np.zeros((1, 3, 56, 56), np.float32)
    runs = measure_speeds(
        model, MeasurementPlan(runs=3, prompt_tokens=17, tokens=5), pixels, done.append
    )
    assert len(runs) == 3 and done == [0, 1, 2, 3]
    # One run more than is counted; all positions are computed each time, the image's too.
    assert [(each.positions, each.computed) for each in prefills] == [(17, 17)] * 4
    assert len(steps) == 4 * 5
    for run in runs:
        assert 0 < run.vision_ms < run.first_token_ms
        assert run.prefill_tok_s > 0 and run.decode_tok_s > 0 and run.peak_rss_bytes > 1e6


def test_measure_counts_image_positions_in_the_prompt(artifact_cache: ArtifactCache) -> None:
    model = Model(artifact_cache.artifact("ldpnet"), threads=1)
    pixels = np.zeros((1, 3, 56, 56), np.float32)
    with pytest.raises(UsageError, match="the image takes 4"):
        measure_speeds(model, MeasurementPlan(prompt_tokens=5), pixels)
    context = model.settings.context
    with pytest.raises(UsageError, match="context"):
        measure_speeds(model, MeasurementPlan(prompt_tokens=context - 3, tokens=4), pixels)


@pytest.mark.parametrize("field", ["runs", "prompt_tokens", "tokens"])
def test_measurement_plan_is_validated(field: str) -> None:
    with pytest.raises(UsageError, match="--" + field.replace("_", "-")):
        MeasurementPlan(**{field: 0})
