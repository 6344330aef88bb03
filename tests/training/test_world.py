"""The world: scenes, questions that scenes decide, the scorer, determinism."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from mvlm.training.world.ood_renderer import ood_scene
from mvlm.training.world.questions import (
    KINDS,
    NUMBERS,
    ask,
    ask_kind,
    description,
    in_mention_order,
    place_name,
    side_of,
)
from mvlm.training.world.scene import COLOURS, SHAPES, Scene, Shape, random_scene
from mvlm.training.world.scoring import is_right, named


def shape(kind: str, colour: str, x: float, y: float, span: float = 0.2) -> Shape:
    return Shape(kind, colour, x, y, span, span**2)


LEFT_RIGHT = Scene(
    1.0,
    0.75,
    (shape("circle", "red", 0.2, 0.5, 0.3), shape("square", "blue", 0.8, 0.5, 0.15)),
)


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown shape 'hexagon'"):
        shape("hexagon", "red", 0.5, 0.5)
    with pytest.raises(ValueError, match="unknown colour 'mauve'"):
        shape("circle", "mauve", 0.5, 0.5)
    with pytest.raises(ValueError, match="width and height"):
        Scene(0.0, 1.0, ())


def test_shapes_lie_inside_the_image_and_keep_apart():
    for scene in scenes(300):
        for index, one in enumerate(scene.shapes):
            *corners, (mx, my) = one.outline
            for px, py in corners:
                assert abs(one.x + px - mx - 0.5) <= scene.width / 2 + 1e-6
                assert abs(one.y + py - my - 0.5) <= scene.height / 2 + 1e-6
            for other in scene.shapes[:index]:
                assert np.hypot(one.x - other.x, one.y - other.y) > 0.04


def test_every_count_shape_and_colour_occurs():
    drawn = scenes(400)
    assert {len(scene.shapes) for scene in drawn} == {0, 1, 2, 3, 4}
    names = {s.name for scene in drawn for s in scene.shapes}
    assert names == {f"{colour} {kind}" for colour in COLOURS for kind in SHAPES}


def test_same_seed_same_questions_and_scenes():
    def sample() -> list[object]:
        words = Random("7")
        return [ask(scene, words) for scene in scenes(50, 7)]

    assert sample() == sample()
    assert scenes(20, 1) != scenes(20, 2)


def test_every_kind_is_asked_and_its_canonical_answer_is_right():
    words, seen = Random(3), Counter()
    for scene in scenes(400):
        for kind in KINDS:
            question = ask_kind(kind, scene, words)
            if question is not None:
                seen[kind] += 1
                assert is_right(kind, question.answer, question.answer)
                assert is_right(kind, question.answer, question.answer.lower().rstrip("."))
    assert set(seen) == set(KINDS)
    assert min(seen.values()) > 20


def test_counting_and_naming_agree_with_the_scene():
    words = Random(5)
    for scene in scenes(300):
        listed = ask_kind("list", scene, words)
        assert listed is not None
        assert named(listed.answer) == sorted(s.name for s in scene.shapes)
        assert named(description(scene)) == sorted(s.name for s in scene.shapes)
        counted = ask_kind("count", scene, words, casual=False)
        assert counted is not None
        if "How many shapes" in counted.text:
            assert counted.answer.lower() == f"{NUMBERS[len(scene.shapes)]}."


@pytest.mark.parametrize(
    ("direction", "verdict"), [("left", True), ("right", False), ("above", None), ("below", None)]
)
def test_sides_are_only_named_with_a_margin(direction, verdict):
    assert side_of(*LEFT_RIGHT.shapes, direction) is verdict


def test_yes_no_questions_follow_the_scene():
    words, answers = Random(1), Counter()
    for _ in range(400):
        question = ask_kind("is_side", LEFT_RIGHT, words, casual=False)
        if question is None:
            continue
        circle_first = question.text.index("circle" if "circle" in question.text else "red") < (
            question.text.index("square" if "square" in question.text else "blue")
        )
        says_left = "left" in question.text
        assert question.answer == ("Yes." if circle_first == says_left else "No.")
        answers[question.answer] += 1
    assert min(answers["Yes."], answers["No."]) > 50


def test_bigger_needs_both_span_and_area():
    star = Shape("star", "red", 0.3, 0.5, span=0.25, area=0.02)
    square = Shape("square", "blue", 0.7, 0.5, span=0.2, area=0.04)
    assert not star.is_bigger_than(square)
    assert not square.is_bigger_than(star)
    assert LEFT_RIGHT.shapes[0].is_bigger_than(LEFT_RIGHT.shapes[1])


def test_places_are_thirds_and_doubtful_ones_are_not_asked():
    scene = Scene(1.0, 1.0, (shape("star", "red", 0.1, 0.1), shape("star", "blue", 0.5, 0.5)))
    assert place_name(scene, scene.shapes[0], certain=True) == "at the top left"
    assert place_name(scene, scene.shapes[1], certain=True) == "in the center"
    border = shape("circle", "green", 0.37, 0.5)
    assert place_name(scene, border, certain=True) is None


def test_shapes_are_told_by_colour_then_kind_then_place():
    blue = shape("circle", "blue", 0.1, 0.1)
    star, right, left = (
        shape(kind, "red", x, 0.5) for kind, x in (("star", 0.3), ("circle", 0.9), ("circle", 0.5))
    )
    told = in_mention_order(Scene(1.0, 1.0, (blue, star, right, left)))
    assert told == [left, right, star, blue]


def test_absent_things_are_said_to_be_absent():
    words = Random(2)
    present = {s.name for s in LEFT_RIGHT.shapes}
    for _ in range(100):
        question = ask_kind("missing", LEFT_RIGHT, words)
        if question is not None:
            assert question.answer.startswith("There is no ")
            assert question.answer[len("There is no ") : -1] not in present


@pytest.mark.parametrize(
    ("kind", "expected", "answer", "right"),
    [
        ("count", "Two.", "2", True),
        ("count", "Two.", "There are two shapes.", True),
        ("count", "Two.", "three", False),
        ("count", "Zero.", "None.", True),
        ("exists", "Yes.", "Yes, there is a red circle.", True),
        ("exists", "Yes.", "No.", False),
        ("exists", "No.", "", False),
        ("colour", "Red.", "The circle is red.", True),
        ("colour", "Red.", "The circle is blue.", False),
        ("colour", "Red.", "red", True),
        ("colour", "Red.", "Blue.", False),
        ("shape", "A circle.", "circle", True),
        ("superlative", "The red circle.", "A red circle", True),
        ("superlative", "The red circle.", "The blue circle.", False),
        ("list", "A red circle and a blue star.", "a blue star and a red circle.", True),
        ("list", "A red circle and a blue star.", "A red circle.", False),
        ("list", "A red circle and a blue star.", "A red star and a blue circle.", False),
        ("what_side", "Nothing.", "A red circle.", False),
        ("what_side", "A red circle.", "Nothing.", False),
        ("missing", "There is no red circle.", "No, there is no red circle.", True),
        ("missing", "There is no red circle.", "Red.", False),
        ("where", "At the top left.", "top left", True),
        ("where", "At the top left.", "At the top.", False),
        ("where", "In the center.", "In the middle.", True),
        ("which_side", "To the left.", "Left.", True),
        (
            "describe",
            "There are two shapes: a red circle on the left and a blue star at the top right.",
            "There are two shapes: a blue star on the right and a red circle on the left.",
            True,
        ),
        (
            "describe",
            "There are two shapes: a red circle on the left and a blue star at the top right.",
            "There are two shapes: a red circle on the right and a blue star at the top right.",
            False,
        ),
        ("describe", "The picture is empty.", "There is one shape: a red star on the left.", False),
    ],
)
def test_scoring_of_answers(kind, expected, answer, right):
    assert is_right(kind, expected, answer) is right


def test_ood_renderer_draws_what_the_scene_says():
    words = Random(0)
    for _ in range(20):
        scene, image = ood_scene(words)
        assert 1 <= len(scene.shapes) <= 4
        assert max(scene.width, scene.height) == 1.0
        assert abs(image.width / image.height - scene.width / scene.height) < 0.01
