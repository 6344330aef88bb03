from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mvlm.bench.measure import MeasurementPlan, measure_speeds
from mvlm.runtime.engine import Answer, Engine
from mvlm.runtime.errors import UsageError
from mvlm.runtime.model import Model
from tests.artifacts import ArtifactCache


def test_measure_runs_the_plan(
    artifact_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(artifact_cache.artifact("ldpnet"), threads=1)
    answers, steps, done = list[Answer](), list[str](), list[int]()
    submit, call = Engine.submit, model._call

    def counted_submit(self: Engine, *arguments: Any) -> list[Answer]:
        found = submit(self, *arguments)
        answers.extend(found)
        return found

    def counted_call(name: str, *arguments: Any) -> Any:
        steps.append(name)
        return call(name, *arguments)

    monkeypatch.setattr(Engine, "submit", counted_submit)
    monkeypatch.setattr(model, "_call", counted_call)
    pixels = np.zeros((1, 3, 56, 56), np.float32)
    runs = measure_speeds(
        model, MeasurementPlan(runs=3, prompt_tokens=17, tokens=5), pixels, done.append
    )
    assert len(runs) == 3 and done == [0, 1, 2, 3]
    # One run more than is counted; all positions are computed each time, the image's too.
    assert [(each.stats.prompt, each.stats.computed) for each in answers] == [(17, 17)] * 4
    assert [(len(each.tokens), each.stats.steps) for each in answers] == [(1 + 5, 1 + 5)] * 4
    assert steps.count("decode") == 4 * 5
    assert [steps.count(name) for name in ("prefill", "vision_tower", "projector")] == [4] * 3
    for run in runs:
        assert 0 < run.vision_ms < run.first_token_ms
        assert run.prefill_tok_s > 0 and run.decode_tok_s > 0 and run.peak_rss_bytes > 1e6
        # Drafts would make random answers of some models faster than others.
        assert (run.drafted, run.accepted, run.tokens_per_step) == (0, 0, 1)


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
