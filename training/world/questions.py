"""What can be asked about a scene, in many wordings, and the one canonical answer to each.

Every kind of question is one function in `KINDS` that looks at a scene and returns a question the
scene decides beyond doubt, or None. Places and sizes are only asked about with a margin. The texts
are what the bundled model was trained on: it knows an image by the word "picture" above all.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import TypeVar

from mvlm.training.world.scene import COLOURS, MAX_SHAPES, SHAPES, Scene, Shape

NUMBERS = ("zero", "one", "two", "three", "four")
DIRECTIONS = ("left", "right", "above", "below")
EMPTY = "The picture is empty."

#: Two shapes are left and right of each other only if their middles differ by this fraction of
#: the padded square and by `CLEAR_SHARE` of the sum of their spans.
CLEAR_GAP = 0.05
CLEAR_SHARE = 0.3

_WORDINGS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than", "beneath"),
}
_ANSWER = {"left": "To the left.", "right": "To the right.", "above": "Above.", "below": "Below."}
_FURTHEST = {
    "left": ("the leftmost shape", "the shape furthest to the left", "the shape on the far left"),
    "right": ("the rightmost shape", "the shape furthest to the right",
              "the shape on the far right"),
    "above": ("the topmost shape", "the highest shape", "the shape at the very top"),
    "below": ("the lowest shape", "the bottommost shape", "the shape at the very bottom"),
}  # fmt: skip
_SIDE = {
    "left": "on the left", "right": "on the right", "above": "at the top", "below": "at the bottom",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question, its kind (a key of `KINDS`) and the canonical answer."""

    kind: str
    text: str
    answer: str


T = TypeVar("T")
Maker = Callable[[Scene, Random], "tuple[str, str] | None"]


def ask(scene: Scene, rng: Random, casual: bool = True) -> Question:
    """A random question about the scene; `casual` allows sloppy case and punctuation."""
    while True:
        kind = _NAMES[bisect(_CUMULATIVE, rng.random() * _CUMULATIVE[-1])]
        made = KINDS[kind][0](scene, rng)
        if made is not None:
            text, answer = made
            return Question(kind, _reword(text, rng, casual), answer)


def ask_kind(kind: str, scene: Scene, rng: Random, casual: bool = True) -> Question | None:
    """A question of that kind, or None if the scene does not decide one."""
    made = KINDS[kind][0](scene, rng)
    return None if made is None else Question(kind, _reword(made[0], rng, casual), made[1])


def side_of(one: Shape, other: Shape, direction: str) -> bool | None:
    """Whether `one` is left/right/above/below of `other`; None if that is not clear."""
    along = one.x - other.x if direction in ("left", "right") else one.y - other.y
    if direction in ("left", "above"):
        along = -along
    if abs(along) < max(CLEAR_GAP, CLEAR_SHARE * (one.span + other.span) / 2):
        return None
    return along > 0


def place_name(scene: Scene, shape: Shape, certain: bool = False) -> str | None:
    """Where in the image a shape is, by thirds, as in "at the top left" or "in the center".

    With `certain` None is returned if the shape is close to the border of two thirds, or if the
    image is so narrow that thirds are hard to see.
    """
    parts = []
    for value, extent, low, high in (
        (scene.in_image(shape)[1], scene.height, "top", "bottom"),
        (scene.in_image(shape)[0], scene.width, "left", "right"),
    ):
        doubt = min(abs(value - 0.36), abs(value - 0.64))
        if certain and (doubt < 0.05 or doubt * extent < 0.03):
            return None
        parts.append(low if value < 0.36 else high if value > 0.64 else "")
    vertical, horizontal = parts
    if vertical and horizontal:
        return f"at the {vertical} {horizontal}"
    if horizontal:
        return f"on the {horizontal}"
    return f"at the {vertical}" if vertical else "in the center"


def join(parts: Sequence[str]) -> str:
    """Joins names in English: `a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    return text[:1].upper() + text[1:] + "."


def _a(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def _plural(kind: str) -> str:
    return kind + "s"


def _pick(options: Sequence[T], rng: Random) -> T:
    return options[int(rng.random() * len(options))]


def _a_shape(scene: Scene, rng: Random) -> Shape | None:
    return _pick(scene.shapes, rng) if scene.shapes else None


def _two(scene: Scene, rng: Random) -> tuple[Shape, Shape] | None:
    if len(scene.shapes) < 2:
        return None
    first, second = rng.sample(scene.shapes, 2)
    return first, second


def _refer(scene: Scene, shape: Shape, rng: Random) -> str | None:
    """A noun phrase that means this shape only: "the red circle", "the circle", "the red one"."""
    ways = []
    if sum(s.name == shape.name for s in scene.shapes) == 1:
        ways += [f"the {shape.name}"] * 3
    if sum(s.kind == shape.kind for s in scene.shapes) == 1:
        ways += [f"the {shape.kind}"] * 2
    if sum(s.colour == shape.colour for s in scene.shapes) == 1:
        ways.append(f"the {shape.colour} {_pick(('shape', 'one', 'thing', 'object'), rng)}")
    return _pick(ways, rng) if ways else None


def _absent(scene: Scene, rng: Random) -> tuple[str, str, str] | None:
    """(phrase, article phrase, category) of something that is not there: a name, kind or colour.

    Half of the names share their colour or kind with a shape that is there: the hard cases.
    """
    names = {shape.name for shape in scene.shapes}
    form = rng.random()
    if form < 0.6:
        kind, colour = _pick(SHAPES, rng), _pick(COLOURS, rng)
        if scene.shapes and rng.random() < 0.6:
            near = _a_shape(scene, rng)
            assert near is not None
            kind, colour = (near.kind, colour) if rng.random() < 0.5 else (kind, near.colour)
        name = f"{colour} {kind}"
        return None if name in names else (name, _a(name), "name")
    if form < 0.85:
        kind = _pick(SHAPES, rng)
        return None if any(s.kind == kind for s in scene.shapes) else (kind, _a(kind), "kind")
    colour = _pick(COLOURS, rng)
    if any(s.colour == colour for s in scene.shapes):
        return None
    return f"{colour} shape", _a(f"{colour} shape"), "colour"


def _colour(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """The colour of the only shape of a kind."""
    shape = _a_shape(scene, rng)
    if shape is None or sum(s.kind == shape.kind for s in scene.shapes) > 1:
        return None
    noun = shape.kind
    if len(scene.shapes) == 1 and rng.random() < 0.3:
        noun = _pick(("shape", "object", "thing"), rng)
    text = _pick(
        (f"What colour is the {noun}?", f"What is the colour of the {noun}?",
         f"Which colour does the {noun} have?", f"What colour does the {noun} have?",
         f"The {noun} is what colour?", f"Tell me the colour of the {noun}.",
         f"Which colour is the {noun}?"), rng)  # fmt: skip
    return text, sentence(shape.colour)


def _shape(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """The kind of the only shape of a colour."""
    shape = _a_shape(scene, rng)
    if shape is None or sum(s.colour == shape.colour for s in scene.shapes) > 1:
        return None
    noun = f"{shape.colour} {_pick(('shape', 'thing', 'object', 'one', 'figure'), rng)}"
    if len(scene.shapes) == 1 and rng.random() < 0.3:
        noun = _pick(("shape", "object", "thing"), rng)
    text = _pick(
        (f"What shape is the {noun}?", f"What is the {noun}?", f"Which shape is the {noun}?",
         f"What is the shape of the {noun}?", f"What shape does the {noun} have?",
         f"What kind of shape is the {noun}?", f"Which shape is {shape.colour}?",
         f"What shape is {shape.colour}?", f"What is {shape.colour}?"), rng)  # fmt: skip
    return text, sentence(_a(shape.kind))


def _exists(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Is there a red circle / a circle / something red?"""
    if rng.random() < 0.5:
        shape = _a_shape(scene, rng)
        if shape is None:
            return None
        kind, colour, answer = shape.kind, shape.colour, "Yes."
        form = _pick(("name", "name", "kind", "colour"), rng)
    else:
        absent = _absent(scene, rng)
        if absent is None:
            return None
        phrase, _, form = absent
        words = phrase.split()
        colour, kind, answer = words[0], words[-1], "No."
    if form == "colour":
        text = _pick(
            (f"Is there a {colour} shape?", f"Is there anything {colour}?",
             f"Is there something {colour} in the picture?", f"Is anything {colour}?",
             f"Are there any {colour} shapes?", f"Is there a {colour} object in the image?",
             f"Do you see anything {colour}?"), rng)  # fmt: skip
        return text.replace("a orange", "an orange"), answer
    noun = f"{colour} {kind}" if form == "name" else kind
    text = _pick(
        (f"Is there {_a(noun)}?", f"Is there {_a(noun)} in the picture?", f"Do you see {_a(noun)}?",
         f"Can you see {_a(noun)}?", f"Are there any {_plural(noun)}?",
         f"Does the picture show {_a(noun)}?", f"Is there {_a(noun)} in the image?",
         f"Is {_a(noun)} there?"), rng)  # fmt: skip
    return text, answer


def _attribute(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Is the circle red? Is the red shape a circle?"""
    shape = _a_shape(scene, rng)
    if shape is None:
        return None
    if rng.random() < 0.5:
        if sum(s.kind == shape.kind for s in scene.shapes) > 1:
            return None
        colour = shape.colour if rng.random() < 0.5 else _pick(COLOURS, rng)
        others = [s.colour for s in scene.shapes if s is not shape]
        if colour != shape.colour and others and rng.random() < 0.5:
            colour = _pick(others, rng)
        text = _pick(
            (f"Is the {shape.kind} {colour}?", f"Is the colour of the {shape.kind} {colour}?"),
                     rng)  # fmt: skip
        return text, "Yes." if colour == shape.colour else "No."
    if sum(s.colour == shape.colour for s in scene.shapes) > 1:
        return None
    kind = shape.kind if rng.random() < 0.5 else _pick(SHAPES, rng)
    noun = f"{shape.colour} {_pick(('shape', 'thing', 'object', 'one'), rng)}"
    return f"Is the {noun} {_a(kind)}?", "Yes." if kind == shape.kind else "No."


def _count(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """How many shapes / circles / red shapes / red circles."""
    form = rng.random()
    near = _a_shape(scene, rng)
    likely = near is not None and rng.random() < 0.65
    kind = near.kind if near is not None and likely else _pick(SHAPES, rng)
    colour = near.colour if near is not None and likely else _pick(COLOURS, rng)
    if form < 0.4:
        noun, number = (
            _pick(("shapes", "shapes", "objects", "things", "figures"), rng),
            len(scene.shapes),
        )
    elif form < 0.65:
        noun, number = _plural(kind), sum(s.kind == kind for s in scene.shapes)
    elif form < 0.85:
        noun = f"{colour} {_pick(('shapes', 'objects', 'things'), rng)}"
        number = sum(s.colour == colour for s in scene.shapes)
    else:
        noun = f"{colour} {_plural(kind)}"
        number = sum(s.name == f"{colour} {kind}" for s in scene.shapes)
    text = _pick(
        (f"How many {noun} are there?", f"How many {noun} are in the picture?",
         f"How many {noun} do you see?", f"How many {noun} can you see?", f"Count the {noun}.",
         f"What is the number of {noun}?", f"How many {noun} are there in the image?",
         f"How many {noun}?"), rng)  # fmt: skip
    return text, sentence(NUMBERS[number])


def _is_side(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Is X left of Y?"""
    pair = _two(scene, rng)
    if pair is None:
        return None
    one, other = (_refer(scene, shape, rng) for shape in pair)
    direction = _pick(DIRECTIONS, rng)
    verdict = side_of(*pair, direction)
    if one is None or other is None or verdict is None:
        return None
    return f"Is {one} {_pick(_WORDINGS[direction], rng)} {other}?", "Yes." if verdict else "No."


def _which_side(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Is X to the left or to the right of Y?"""
    pair = _two(scene, rng)
    if pair is None:
        return None
    one, other = (_refer(scene, shape, rng) for shape in pair)
    sideways = rng.random() < 0.5
    verdict = side_of(*pair, "left" if sideways else "above")
    if one is None or other is None or verdict is None:
        return None
    if sideways:
        text = _pick(
            (f"Is {one} to the left or to the right of {other}?",
             f"Is {one} left or right of {other}?",
             f"Is {one} on the left or on the right of {other}?"), rng)  # fmt: skip
        return text, _ANSWER["left" if verdict else "right"]
    text = _pick((f"Is {one} above or below {other}?", f"Is {one} over or under {other}?"), rng)
    return text, _ANSWER["above" if verdict else "below"]


def _beside(scene: Scene, shape: Shape, direction: str) -> list[Shape] | None:
    """All shapes on that side of `shape`; None if that is not clear for all."""
    found = []
    for other in scene.shapes:
        if other is shape:
            continue
        verdict = side_of(other, shape, direction)
        if verdict is None:
            return None
        if verdict:
            found.append(other)
    return found


def _what_side(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """What is left of X? One shape or nothing.

    Where there are several, any of them would be an answer and all of them a better one: not asked.
    """
    shape = _a_shape(scene, rng)
    direction = _pick(DIRECTIONS, rng)
    reference = None if shape is None else _refer(scene, shape, rng)
    beside = None if shape is None else _beside(scene, shape, direction)
    if reference is None or beside is None or len(beside) > 1:
        return None
    if not beside and rng.random() < 0.6:
        return None
    where = f"{_pick(_WORDINGS[direction], rng)} {reference}"
    if beside and rng.random() < 0.5:
        if rng.random() < 0.5:
            noun = _pick(("shape", "thing", "object"), rng)
            return f"What colour is the {noun} {where}?", sentence(beside[0].colour)
        text = _pick((f"What shape is {where}?", f"Which shape is {where}?"), rng)
        return text, sentence(_a(beside[0].kind))
    text = _pick((f"What is {where}?", f"What is {where}?", f"What do you see {where}?"), rng)
    return text, sentence(_a(beside[0].name)) if beside else "Nothing."


def _extreme(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Which shape is the leftmost, highest, ...?"""
    shape = _a_shape(scene, rng)
    direction = _pick(DIRECTIONS, rng)
    if shape is None or len(scene.shapes) < 2:
        return None
    ahead = [side_of(shape, other, direction) for other in scene.shapes if other is not shape]
    if not all(ahead):
        return None
    end, side = _pick(_FURTHEST[direction], rng), _SIDE[direction]
    form = rng.random()
    if form < 0.3:
        return f"What colour is {end}?", sentence(shape.colour)
    if form < 0.4:
        return f"What kind of shape is {end}?", sentence(_a(shape.kind))
    if len(scene.shapes) == 2 and form < 0.75:
        text = _pick(
            (f"What is {side}?", f"What is {side} of the picture?", f"Which shape is {side}?",
             f"What do you see {side}?"), rng)  # fmt: skip
        return text, sentence(_a(shape.name))
    text = _pick((f"What is {end}?", f"Which is {end}?", f"Which one is {end}?"), rng)
    return text, sentence(_a(shape.name))


def _where(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Where is X?"""
    shape = _a_shape(scene, rng)
    reference = None if shape is None else _refer(scene, shape, rng)
    place = None if shape is None else place_name(scene, shape, certain=True)
    if reference is None or place is None:
        return None
    text = _pick(
        (f"Where is {reference}?", f"Where is {reference}?",
         f"Where is {reference} in the picture?",
         f"Where do you see {reference}?", f"In which part of the picture is {reference}?"),
        rng)  # fmt: skip
    return text, sentence(place)


_BIG = (("biggest", "bigger"), ("largest", "larger"))
_SMALL = (("smallest", "smaller"),)


def _superlative(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Which shape is the biggest / smallest?"""
    shape = _a_shape(scene, rng)
    if shape is None or len(scene.shapes) < 2:
        return None
    others = [other for other in scene.shapes if other is not shape]
    if all(shape.is_bigger_than(other) for other in others):
        word = _pick([w for w, _ in _BIG], rng)
    elif all(other.is_bigger_than(shape) for other in others):
        word = "smallest"
    else:
        return None
    form = rng.random()
    if form < 0.25:
        text = _pick((f"What colour is the {word} shape?", f"What colour is the {word} object?",
                      f"Which colour does the {word} shape have?"), rng)  # fmt: skip
        return text, sentence(shape.colour)
    if form < 0.4:
        text = _pick(
            (f"What kind of shape is the {word} one?", f"What kind of shape is the {word}?"),
                     rng)  # fmt: skip
        return text, sentence(_a(shape.kind))
    text = _pick(
        (f"Which shape is the {word}?", f"What is the {word} shape?", f"Which is the {word} shape?",
         f"Which one is the {word}?", f"Which shape is {word}?", f"What is the {word} object?",
         f"Which object is the {word}?"), rng)  # fmt: skip
    return text, sentence(f"the {shape.name}")


def _bigger(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Is X bigger / smaller than Y? Is X the biggest? Which is bigger, X or Y?"""
    pair = _two(scene, rng)
    if pair is None:
        return None
    one, other = (_refer(scene, shape, rng) for shape in pair)
    if one is None or other is None:
        return None
    larger = pair[0].is_bigger_than(pair[1])
    if not larger and not pair[1].is_bigger_than(pair[0]):
        return None
    big = rng.random() < 0.5
    most, more = _pick(_BIG, rng) if big else _SMALL[0]
    form = rng.random()
    if form < 0.25:
        winner = pair[0] if larger == big else pair[1]
        text = _pick((f"Which is {more}, {one} or {other}?",
                      f"What is {more}, {one} or {other}?"), rng)  # fmt: skip
        return text, sentence(f"the {winner.name}")
    if form < 0.4:
        rest = [s for s in scene.shapes if s is not pair[0]]
        wins = [s for s in rest if (pair[0] if big else s).is_bigger_than(s if big else pair[0])]
        losses = [s for s in rest if (s if big else pair[0]).is_bigger_than(pair[0] if big else s)]
        if len(wins) < len(rest) and not losses:
            return None
        return f"Is {one} the {most} shape?", "No." if losses else "Yes."
    return f"Is {one} {more} than {other}?", "Yes." if larger == big else "No."


def _missing(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """A question about something that is not there."""
    absent = _absent(scene, rng)
    if absent is None:
        return None
    phrase, _, category = absent
    present = _a_shape(scene, rng)
    ways = [
        f"Where is the {phrase}?",
        f"What is {_pick(_WORDINGS[_pick(DIRECTIONS, rng)], rng)} the {phrase}?",
    ]
    if category == "kind":
        ways += [f"What colour is the {phrase}?"] * 2 + [f"What is the colour of the {phrase}?"]
    if category == "colour":
        ways += [f"What shape is the {phrase}?", f"What is the {phrase}?"]
    reference = None if present is None else _refer(scene, present, rng)
    if reference is not None and rng.random() < 0.4:
        relation = _pick(_WORDINGS[_pick(DIRECTIONS, rng)], rng)
        ways = [f"Is the {phrase} {relation} {reference}?",
                f"Is {reference} {relation} the {phrase}?",
                f"Is the {phrase} bigger than {reference}?"]  # fmt: skip
    return _pick(ways, rng), f"There is no {phrase}."


def _colours(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """What colours / shapes are there? In the order of the vocabulary."""
    if not scene.shapes:
        return None
    if rng.random() < 0.6:
        found = [c for c in COLOURS if any(s.colour == c for s in scene.shapes)]
        text = _pick(
            ("What colours are there?", "Which colours do you see?", "What colours do you see?",
             "What colours are the shapes?", "Which colours are in the picture?",
             "What colours are in the image?", "List the colours."), rng)  # fmt: skip
        return text, sentence(join(found))
    kinds = [k for k in SHAPES if any(s.kind == k for s in scene.shapes)]
    text = _pick(
        ("What kinds of shapes are there?", "Which kinds of shapes do you see?",
         "Which shapes are there?", "What shapes do you see?", "What shapes are in the picture?",
         "What shapes are there?", "List the shapes."), rng)  # fmt: skip
    return text, sentence(join([_a(k) for k in kinds]))


def _same(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Have X and Y the same colour? Are all shapes red / circles?"""
    pair = _two(scene, rng)
    if pair is None:
        return None
    if rng.random() < 0.5:
        colour, kind = pair[0].colour, pair[0].kind
        same_colour = all(s.colour == colour for s in scene.shapes)
        same_kind = all(s.kind == kind for s in scene.shapes)
        # A yes is rare: where one of the two is true, that one is asked.
        if rng.random() < 0.5 if same_colour == same_kind else same_colour:
            return f"Are all shapes {colour}?", _yes(same_colour)
        return f"Are all shapes {_plural(kind)}?", _yes(same_kind)
    if any(sum(s.kind == p.kind for s in scene.shapes) > 1 for p in pair):
        return None
    one, other = (f"the {s.kind}" for s in pair)
    text = _pick((f"Are {one} and {other} the same colour?",
                  f"Do {one} and {other} have the same colour?"), rng)  # fmt: skip
    return text, _yes(pair[0].colour == pair[1].colour)


def _yes(verdict: bool) -> str:
    return "Yes." if verdict else "No."


def in_mention_order(scene: Scene) -> list[Shape]:
    """The shapes by colour, then by kind; those of one name from left to right.

    What comes next is then a matter of what the shapes are: from left to right it hung on places
    that are nearly equal, and a small model said one of two shapes twice.
    """
    return sorted(
        scene.shapes, key=lambda s: (COLOURS.index(s.colour), SHAPES.index(s.kind), s.x, s.y)
    )


def _list(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """What is in the picture?"""
    text = _pick(
        ("What is in the picture?", "What do you see?", "What is in the image?",
         "What can you see?", "What is in this picture?", "What does the picture show?",
         "What do you see in the picture?", "What objects are in the picture?",
         "What is shown here?", "What is this?"), rng)  # fmt: skip
    if not scene.shapes:
        return text, EMPTY
    return text, sentence(join([_a(shape.name) for shape in in_mention_order(scene)]))


def _describe(scene: Scene, rng: Random) -> tuple[str, str] | None:
    """Describe the picture: how many, which and where."""
    text = _pick(
        ("Describe the picture.", "Describe the image.", "Please describe the picture.",
         "Describe this picture.", "Describe the picture in detail.", "Describe what you see.",
         "Can you describe the picture?", "Describe the scene.", "Give a description of the image.",
         "Tell me about the picture."), rng)  # fmt: skip
    return text, description(scene)


def description(scene: Scene) -> str:
    """The canonical description."""
    if not scene.shapes:
        return EMPTY
    parts = [f"{_a(s.name)} {place_name(scene, s)}" for s in in_mention_order(scene)]
    count = len(parts)
    opening = "There is one shape" if count == 1 else f"There are {NUMBERS[count]} shapes"
    return f"{opening}: {join(parts)}."


#: Kind of question -> (maker, share of the questions before undecided ones are dropped).
KINDS: dict[str, tuple[Maker, float]] = {
    "colour": (_colour, 1.4),
    "shape": (_shape, 1.6),
    "exists": (_exists, 1.2),
    "attribute": (_attribute, 1.0),
    "count": (_count, 1.6),
    "is_side": (_is_side, 2.4),
    "which_side": (_which_side, 1.0),
    "what_side": (_what_side, 3.4),
    "extreme": (_extreme, 2.2),
    "where": (_where, 1.4),
    "superlative": (_superlative, 2.2),
    "bigger": (_bigger, 2.4),
    "missing": (_missing, 1.4),
    "colours": (_colours, 2.0),
    "same": (_same, 0.6),
    "list": (_list, 0.9),
    "describe": (_describe, 1.2),
}
_NAMES = list(KINDS)
_CUMULATIVE = list(accumulate(share for _, share in KINDS.values()))


_OPENINGS = ("Please tell me: ", "Please tell me, ", "Tell me, ", "Can you tell me: ")


def _reword(text: str, rng: Random, casual: bool) -> str:
    """American spelling in half of the cases; sometimes longer, in lower case, without a mark."""
    if rng.random() < 0.5:
        text = text.replace("colour", "color")
    text = text.replace("What is", "What's") if casual and rng.random() < 0.08 else text
    if casual and rng.random() < 0.15:
        text = text.replace("the picture", "the image")
    if casual and rng.random() < 0.15 and text.endswith("?") and "in the " not in text:
        text = text[:-1] + _pick((" in this picture?", " in the picture?", " here?"), rng)
    if casual and rng.random() < 0.08:
        text = _pick(_OPENINGS, rng) + text[:1].lower() + text[1:]
    if casual and rng.random() < 0.22:
        text = text.lower()
    if casual and rng.random() < 0.2:
        text = text.rstrip("?.")
    return text


assert len(NUMBERS) > MAX_SHAPES
