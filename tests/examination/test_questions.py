"""The questions' answers, checked on an image whose truth is plain."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from random import Random

import pytest

from tests.examination.questions import KINDS, Question, questions
from tests.examination.truth import DIRECTIONS, Direction, Figure, Truth

BIG = Figure("circle", "red", 20, 40, 80, 100, 2827)
SMALL = Figure("square", "blue", 150, 20, 180, 50, 900)
LOW = Figure("star", "red", 150, 150, 180, 180, 350)
TRUTH = Truth(200, 200, (BIG, SMALL, LOW))

#: In lower case, with American spelling.
RIGHT = {
    "what color is the circle?": "red",
    "which color is the square?": "blue",
    "which shape is blue?": "square",
    "how many shapes are there?": "three",
    "how many red shapes are there?": "two",
    "how many red stars do you see?": "one",
    "how many triangles are in the picture?": "zero",
    "is the circle to the left of the square?": "yes",
    "is the circle left of the star?": "yes",
    "is the square below the star?": "no",
    "is the square above or below the star?": "above",
    "is the circle left or right of the star?": "left",
    "what is above the star?": None,
    "what is below the blue square?": None,
    "which is the leftmost shape?": "the red circle",
    "what is the lowest shape?": "the red star",
    "which shape is the biggest?": "the circle",
    "is the circle smaller than the square?": "no",
    "is the red circle larger than the red star?": "yes",
    "is there a red square?": "no",
    "do you see a blue shape?": "yes",
    "is the circle red?": "yes",
    "is the blue shape a star?": "no",
    "describe the picture.": "a red circle, a blue square and a red star",
}


@pytest.fixture(scope="module")
def asked() -> dict[str, Question]:
    found = {}
    for seed in range(3000):
        for question in questions(TRUTH, 12, Counter(), Random(seed)):
            found[question.text.lower().replace("colour", "color")] = question
    return found


@pytest.mark.parametrize(("text", "answer"), RIGHT.items())
def test_answers(asked: dict[str, Question], text: str, answer: str | None) -> None:
    # The circle is above or below neither of the others clearly enough.
    if answer is None:
        assert text not in asked
    else:
        assert asked[text].expected.allows(answer)


def test_size_of_square_and_star_is_not_asked(asked: dict[str, Question]) -> None:
    # The star's box equals the square's, whatever its area.
    assert not any("smallest" in text for text in asked)
    assert TRUTH.is_bigger(SMALL, LOW) is None


def test_all_kinds_and_wordings(asked: dict[str, Question]) -> None:
    assert {question.kind for question in asked.values()} >= set(KINDS) - {"what is beside"}
    assert {question.wording for question in asked.values()} == {"usual", "varied"}


def test_kinds_that_were_asked_least_come_first() -> None:
    counts = Counter({kind: 5 for kind in KINDS if kind != "colour"})
    [question] = questions(TRUTH, 1, counts, Random(0))
    assert question.kind == "colour" and counts["colour"] == 1


def test_relations() -> None:
    opposites: tuple[Direction, ...] = ("right", "left", "below", "above")
    for direction, opposite in zip(DIRECTIONS, opposites, strict=True):
        for one in TRUTH.figures:
            for other in TRUTH.others(one):
                verdict = TRUTH.lies(one, direction, other)
                assert verdict == TRUTH.lies(other, opposite, one)
    assert TRUTH.lies(BIG, "left", SMALL) is True
    assert TRUTH.lies(SMALL, "left", LOW) is None
    assert TRUTH.names_of(LOW) == ["red star", "star"]


@pytest.mark.parametrize("change", [{"kind": "blob"}, {"colour": "pink"}, {"right": 20}])
def test_bad_figures_are_refused(change: dict[str, object]) -> None:
    values = dict(zip(Figure.__dataclass_fields__, astuple(BIG), strict=True)) | change
    with pytest.raises(ValueError):
        Figure(**values)
