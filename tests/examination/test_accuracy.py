"""How often the compiled bundled model is right, on held-out scenes and on others' images."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
from tests.once import make_once

pytestmark = pytest.mark.extended

DEFAULT = "q4a8"
OTHERS = ("q0f32", "q4f16_1")

# What the bundled model answered when compiled in a scheme.
Answered = Callable[[str], list[Outcome]]


@pytest.fixture(scope="module")
def candidate(shared_folder: Path) -> Callable[[str], Candidate]:
    def compiled(scheme: str) -> Candidate:
        folder = make_once(
            shared_folder / f"bundled-{scheme}",
            lambda folder: compile_bundled(scheme, folder),
        )
        return Candidate(scheme, folder / scheme)

    return functools.cache(compiled)


@pytest.fixture(scope="module")
def held_out(candidate: Callable[[str], Candidate]) -> Answered:
    return functools.cache(lambda scheme: examine_held_out([candidate(scheme)], count=1000))


@pytest.fixture(scope="module")
def independent(candidate: Callable[[str], Candidate]) -> Answered:
    return functools.cache(lambda scheme: examine_independent([candidate(scheme)], count=300))


@pytest.mark.parametrize(
    ("scheme", "least"),
    [(DEFAULT, 93), ("q0f32", 95), ("q4f16_1", 93)],
)
def test_accuracy_on_held_out_scenes(held_out: Answered, scheme: str, least: float) -> None:
    outcomes = held_out(scheme)
    assert {outcome.model for outcome in outcomes} == {scheme}
    assert len(outcomes) == 1000
    assert accuracy(outcomes) >= least, summary(outcomes, ["kind"])


@pytest.mark.parametrize(
    "answer", ["Yes.", "No.", "Red.", "A star.", "Two.", "The red star.", "To the left."]
)
def test_no_constant_answer_scores_high(independent: Answered, answer: str) -> None:
    # Else the accuracy would say little about what the model sees.
    outcomes = independent(DEFAULT)
    assert sum(o.expected.allows(answer) for o in outcomes) < 0.25 * len(outcomes)


@pytest.mark.parametrize("scheme", [DEFAULT, *OTHERS])
def test_accuracy_on_independently_drawn_images(independent: Answered, scheme: str) -> None:
    outcomes = independent(scheme)
    assert {outcome.model for outcome in outcomes} == {scheme}
    assert len(outcomes) == 900
    assert accuracy(outcomes) >= 85, summary(outcomes, ["kind", "wording", "style", "background"])
