"""The load that servers are measured by: what clients ask, note and sum up."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from mvlm.bench.serving.client import Exchange, Load, prompt_text, run
from mvlm.bench.serving.figures import figures
from mvlm.bench.serving.study import HEAD, Row
from tests.runtime.server.conftest import NAME, Running
from tests.runtime.server.conftest import serve as serve
from tests.runtime.server.conftest import server as server


@pytest.fixture
def load(server: Running) -> Load:
    return Load(f"{server.url}/v1/completions", NAME, 3, 0.2, words=8, tokens=12)


def test_answers_of_clients(load: Load) -> None:
    found = asyncio.run(run(load))
    assert len(found) >= load.clients and sorted(each.prompt for each in found) == [
        *range(len(found))
    ]
    for each in found:
        assert each.error is None and each.tokens == load.tokens
        assert each.text and each.times == sorted(each.times) and each.seconds >= each.times[-1] > 0


def test_an_answer_is_the_same_alone(load: Load) -> None:
    several = {each.prompt: each.text for each in asyncio.run(run(load))}
    for prompt in (0, 2):
        alone = replace(load, clients=1, seconds=0.0, first=prompt)
        (found,) = asyncio.run(run(alone))
        assert found.text == several[prompt]


def test_failures_are_told(load: Load) -> None:
    (refused,) = asyncio.run(run(replace(load, model="unknown", clients=1, seconds=0.0)))
    assert refused.error is not None and refused.error.startswith("404: ")
    (unheard,) = asyncio.run(run(replace(load, url="http://127.0.0.1:1/", clients=1, seconds=0.0)))
    assert unheard.error is not None and "ConnectError" in unheard.error


def test_prompts_differ_and_stay() -> None:
    assert prompt_text(1, 5) == prompt_text(1, 5) != prompt_text(2, 5)
    assert len(prompt_text(7, 5).split()) == 6


def test_figures() -> None:
    answers = [Exchange(0, "ab", 2, [0.1, 0.3], 0.3), Exchange(1, "ab", 4, [0.2, 0.3], 0.4)]
    found = figures([*answers, Exchange(2, error="refused")], 2.0)
    assert (found.answers, found.failed, found.tok_s) == (2, 1, 3.0)
    assert found.first_ms == pytest.approx((150, 199)) and found.between_ms[0] == pytest.approx(150)
    row = Row("server", 2, found, 1 << 20, None).to_markdown()
    assert row.count("|") == HEAD.splitlines()[0].count("|") and "| +1.0 |" in row
    nothing = figures([], 1.0)
    assert nothing.answers == 0 and all(map(math.isnan, nothing.first_ms))
