"""An engine computes in the background as long as its owner waits, and no longer."""

from __future__ import annotations

import threading
import time

import pytest

from mvlm.runtime.engine import Engine, Request
from mvlm.runtime.engine.background import BackgroundSteps
from mvlm.runtime.model import Model
from tests.artifacts import ArtifactCache


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    return Model(artifact_cache.artifact("linear"))


def test_a_prompt_is_read_while_the_owner_waits(model: Model) -> None:
    engine = Engine(model)
    ahead = engine.read_ahead(Request([1, *range(3, 90)]))
    with BackgroundSteps(engine):
        deadline = time.monotonic() + 60
        while not ahead.is_finished and time.monotonic() < deadline:
            time.sleep(0.001)
    assert ahead.finish_reason == "length" and engine.is_idle
    (answer,) = engine.submit(Request([1, *range(3, 95)]))
    next(engine.tokens(answer))
    assert answer.stats.computed == 5


def test_leaving_stops_after_the_step(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, steps, entered = Engine(model), [], threading.Event()

    def step() -> bool:
        steps.append(threading.current_thread().name)
        entered.set()
        time.sleep(0.001)
        return True

    monkeypatch.setattr(engine, "step", step)
    with BackgroundSteps(engine):
        assert entered.wait(60)
    done = len(steps)
    time.sleep(0.01)
    assert len(steps) == done and set(steps) == {"mvlm-background"}


def test_a_fault_is_raised_where_the_owner_goes_on(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model)

    def fail() -> bool:
        raise ValueError("a fault")

    monkeypatch.setattr(engine, "step", fail)
    with pytest.raises(ValueError, match="a fault"), BackgroundSteps(engine):
        pass
