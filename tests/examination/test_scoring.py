"""The judge of the answers, which decides what the accuracy is worth."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from mvlm.training.world.questions import KINDS, ask_kind
from mvlm.training.world.scene import random_scene
from tests.examination.scoring import (
    Absent,
    Expected,
    Figures,
    Nothing,
    Number,
    OneOf,
    Place,
    Sides,
    Word,
    YesNo,
    expected_of,
)

COLOUR = Word("What colour is the star?", "red", also="star")
SHAPE = Word("What shape is the red thing?", "star", also="red")
COUNT = Number("How many red stars are there?", 2)
NONE = Number("How many circles are there?", 0)
YES = YesNo("Is the red star left of the blue circle?", True)
NO = YesNo("Is there a red star?", False)
SIDE = Sides("Is the red star to the left or to the right of the circle?", frozenset({"left"}))
WHICH = OneOf("Which is bigger, the star or the circle?", ("red star", "star", "red"))
EVERYWHERE = Place(frozenset(("left", "")), frozenset(("top", "")))
BELOW = Place(frozenset(("", "left", "right")), frozenset(("bottom",)))
ALL = Figures("Describe the picture.", ("red star", "blue circle"), (EVERYWHERE, BELOW))
TWINS = Figures("Describe the picture.", ("red star", "red star"), (EVERYWHERE, BELOW))


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (COLOUR, "Red."),
        (COLOUR, "red"),
        (COLOUR, "The star is red!"),
        (COLOUR, "It is a red star."),
        (SHAPE, "A star."),
        (SHAPE, "The red thing is a star."),
        (COUNT, "Two."),
        (COUNT, "2"),
        (COUNT, "There are two red stars."),
        (NONE, "Zero."),
        (NONE, "0"),
        (NONE, "None."),
        (NONE, "There are no circles."),
        (YES, "Yes."),
        (YES, "yes, the red star is left of the blue circle"),
        (NO, "No."),
        (NO, "No, there isn't."),
        (SIDE, "To the left."),
        (SIDE, "Left"),
        (SIDE, "The red star is on the left."),
        (WHICH, "The red star."),
        (WHICH, "The star."),
        (WHICH, "The red one."),
        (WHICH, "The star is bigger than the circle."),
        (ALL, "There are two shapes: a red star at the top left and a blue circle at the bottom."),
        (ALL, "A blue circle and a red star."),
        (ALL, "A red star, a blue circle"),
        (TWINS, "There are two shapes: a red star at the bottom and a red star at the top left."),
        (Nothing("What is left of the star?"), "Nothing."),
        (Nothing("What is left of the star?"), "There is nothing."),
        (Absent("Where is the red star?", "red star"), "There is no red star."),
    ],
)
def test_right(expected: Expected, answer: str) -> None:
    assert expected.allows(answer)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (COLOUR, ""),
        (COLOUR, "Blue."),
        (COLOUR, "Star."),
        (COLOUR, "Red and blue."),
        (COLOUR, "Red. Blue."),
        (COLOUR, "A red circle."),
        (COLOUR, "Pink, or red."),
        (COLOUR, "Red lorem ipsum."),
        (COLOUR, "Red �"),
        (COLOUR, "There is no star."),
        (COLOUR, "Not red."),
        (SHAPE, "A square."),
        (SHAPE, "A star and a circle."),
        (SHAPE, "Two stars."),
        (COUNT, "Three."),
        (COUNT, "Two or three."),
        (COUNT, "Two blue stars."),
        (COUNT, "Red."),
        (NONE, "One."),
        (YES, "No."),
        (YES, "Yes and no."),
        (YES, "Yes, a green triangle."),
        (YES, "Yes, right."),
        (YES, "Left."),
        (NO, "Yes."),
        (SIDE, "To the right."),
        (SIDE, "To the left and to the right."),
        (SIDE, "The circle is to the left."),
        (SIDE, "Above."),
        (SIDE, "Yes."),
        (WHICH, "The circle."),
        (WHICH, "The blue star."),
        (WHICH, "The red circle."),
        (WHICH, "The star and the circle."),
        (WHICH, "The star or the circle."),
        (ALL, "A red star."),
        (ALL, "A red star and a green circle."),
        (ALL, "A blue star and a red circle."),
        (ALL, "A red star, a blue circle and a square."),
        (ALL, "A red star, a red star and a blue circle."),
        (ALL, "There are three shapes: a red star and a blue circle."),
        (ALL, "A red star at the top right and a blue circle at the bottom."),
        (ALL, "A red star at the top left and a blue circle at the top."),
        (TWINS, "A red star."),
        (TWINS, "Two shapes: a red star at the top and a red star at the top left."),
        (Nothing("What is left of the star?"), "A red circle."),
        (Nothing("What is left of the star?"), "Yes."),
        (Absent("Where is the red star?", "red star"), "There is no blue star."),
        (Absent("Where is the red star?", "red star"), "At the top."),
    ],
)
def test_wrong(expected: Expected, answer: str) -> None:
    assert not expected.allows(answer)


@pytest.mark.parametrize(
    ("question", "canonical", "expected"),
    [
        ("Is it red?", "Yes.", YesNo("Is it red?", True)),
        ("How many?", "Zero.", Number("How many?", 0)),
        ("What colour?", "Purple.", Word("What colour?", "purple")),
        ("What shape?", "A square.", Word("What shape?", "square")),
        ("Where?", "At the top left.", Sides("Where?", frozenset(("top", "left")))),
        ("Where?", "In the center.", Sides("Where?", frozenset(("center",)))),
        ("Which side?", "Below.", Sides("Which side?", frozenset(("below",)))),
        ("What is left?", "Nothing.", Nothing("What is left?")),
        ("Describe it.", "The picture is empty.", Nothing("Describe it.")),
        ("Which?", "There is no red star.", Absent("Which?", "red star")),
        ("Which?", "The red star.", Figures("Which?", ("red star",))),
        ("Which colours?", "Red and blue.", Figures("Which colours?", ("red", "blue"))),
        ("What?", "A red star and a star.", Figures("What?", ("red star", "star"))),
    ],
)
def test_canonical_answers(question: str, canonical: str, expected: Expected) -> None:
    assert expected_of(question, canonical) == expected
    assert expected.allows(canonical)


def test_canonical_description_binds_places_to_figures() -> None:
    expected = expected_of(
        "Describe the picture.",
        "There are two shapes: a red star at the top left and a blue circle in the center.",
    )
    assert expected.allows("A red star on the left and a blue circle at the top.")
    assert not expected.allows("A red star on the right and a blue circle in the center.")
    assert not expected.allows("A blue circle at the bottom left and a red star at the bottom.")


@pytest.mark.parametrize("kind", KINDS)
def test_training_answers_are_right_and_others_are_not(kind: str) -> None:
    numbers, words = np.random.default_rng(7), Random(7)
    scenes = [random_scene(numbers) for _ in range(150)]
    asked = [q for scene in scenes if (q := ask_kind(kind, scene, words, casual=False))]
    assert len(asked) >= 5
    wrongly_allowed = 0
    for question, another in zip(asked, [*asked[1:], asked[0]], strict=True):
        expected = expected_of(question.text, question.answer)
        assert expected.allows(question.answer), question
        if another.answer != question.answer:
            wrongly_allowed += expected.allows(another.answer)
    # "A red circle" may answer what asks for "a circle" if the question itself speaks of red.
    assert wrongly_allowed <= 0.03 * len(asked)
