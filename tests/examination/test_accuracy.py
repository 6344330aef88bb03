"""How often the compiled bundled model is right, on held-out scenes and on others' images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examination.artifacts import compile_bundled
from tests.examination.examine import (
    Candidate,
    Outcome,
    examine_held_out,
    examine_independent,
)
from tests.examination.report import accuracy, summary

SCHEMES = ("q0f32", "q4a8", "q4f16_1")


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    folder: Path = tmp_path_factory.mktemp("bundled")
    return [Candidate(scheme, compile_bundled(scheme, folder)) for scheme in SCHEMES]


@pytest.fixture(scope="module")
def held_out(candidates: list[Candidate]) -> list[Outcome]:
    return examine_held_out(candidates, count=1000)


@pytest.fixture(scope="module")
def independent(candidates: list[Candidate]) -> list[Outcome]:
    return examine_independent(candidates, count=300)


@pytest.mark.parametrize(("scheme", "least"), [("q0f32", 95), ("q4a8", 93), ("q4f16_1", 93)])
def test_accuracy_on_held_out_scenes(held_out: list[Outcome], scheme: str, least: float) -> None:
    outcomes = [outcome for outcome in held_out if outcome.model == scheme]
    assert len(outcomes) == 1000
    assert accuracy(outcomes) >= least, summary(outcomes, ["kind"])


@pytest.mark.parametrize(
    "answer", ["Yes.", "No.", "Red.", "A star.", "Two.", "The red star.", "To the left."]
)
def test_no_constant_answer_scores_high(independent: list[Outcome], answer: str) -> None:
    # Else the accuracy would say little about what the model sees.
    assert sum(o.expected.allows(answer) for o in independent) < 0.25 * len(independent)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_accuracy_on_independently_drawn_images(independent: list[Outcome], scheme: str) -> None:
    outcomes = [outcome for outcome in independent if outcome.model == scheme]
    assert len(outcomes) == 900
    assert accuracy(outcomes) >= 85, summary(outcomes, ["kind", "wording", "style", "background"])
