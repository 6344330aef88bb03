"""Asks questions in plain English about an image's truth, each with its one right answer.

Of an image only what is clear is asked. Each way to ask is either ``usual`` or ``varied``: usual
wordings are among those that the model's training uses, varied ones are mild changes of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from tests.examination.scoring import Expected, Figures, Number, OneOf, Place, Sides, Word, YesNo
from tests.examination.truth import COLOURS, DIRECTIONS, SHAPES, Direction, Figure, Truth


@dataclass(frozen=True)
class Question:
    """A question and what answers it.

    Attributes:
        kind: A key of `KINDS`.
        text: As it is asked.
        expected: What a right answer says.
        wording: ``usual`` or ``varied``.
    """

    kind: str
    text: str
    expected: Expected
    wording: str


#: What a maker gives: usual and varied texts, and the answer to any of them.
_Made = tuple[list[str], list[str], Callable[[str], Expected]]
_VARIED_SHARE = 0.3

_RELATION: dict[Direction, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "higher than"),
    "below": ("below", "under"),
}
_END: dict[Direction, tuple[str, str]] = {
    "left": ("leftmost", "furthest to the left"),
    "right": ("rightmost", "furthest to the right"),
    "above": ("topmost", "the highest"),
    "below": ("lowest", "at the very bottom"),
}


def questions(truth: Truth, count: int, asked: Counter[str], rng: Random) -> list[Question]:
    """Asks up to `count` questions of different kinds, those kinds first that were asked least.

    Args:
        truth: What the image shows.
        count: How many.
        asked: How often each kind was asked so far; is brought up to date.
        rng: Decides on the rest.
    """
    kinds = sorted(KINDS, key=lambda kind: (asked[kind], rng.random()))
    found = []
    for kind in kinds:
        made = _first(KINDS[kind](truth, rng) for _ in range(8))
        if made is not None:
            found.append(_worded(kind, made, rng))
            asked[kind] += 1
        if len(found) == count:
            break
    return found


def _first(tries: Iterable[_Made | None]) -> _Made | None:
    return next((made for made in tries if made is not None), None)


def _worded(kind: str, made: _Made, rng: Random) -> Question:
    usual, varied, answer = made
    is_varied = bool(varied) and rng.random() < _VARIED_SHARE
    text = rng.choice(varied if is_varied else usual)
    if rng.random() < 0.5:
        text = text.replace("colour", "color")
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip("?.")
    return Question(kind, text, answer(text), "varied" if is_varied else "usual")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _the(truth: Truth, figure: Figure, rng: Random) -> str | None:
    """A phrase that means this figure only, with its article."""
    names = truth.names_of(figure)
    if not names:
        return None
    name = rng.choice(names)
    return f"the {name} shape" if name in COLOURS else f"the {name}"


def _two(truth: Truth, rng: Random) -> tuple[Figure, Figure, str, str] | None:
    """Two figures and phrases for them."""
    if len(truth.figures) < 2:
        return None
    one, other = rng.sample(truth.figures, 2)
    first, second = _the(truth, one, rng), _the(truth, other, rng)
    return None if first is None or second is None else (one, other, first, second)


def _colour(truth: Truth, rng: Random) -> _Made | None:
    figure = rng.choice(truth.figures)
    if truth.called(figure.kind) != [figure]:
        return None
    noun = figure.kind
    usual = [
        f"What colour is the {noun}?", f"What is the colour of the {noun}?",
        f"Which colour is the {noun}?",
    ]  # fmt: skip
    varied = [
        f"Can you tell me the colour of the {noun}?", f"What colour is the {noun} in this picture?",
        f"The {noun} has which colour?",
    ]  # fmt: skip
    return usual, varied, lambda text: Word(text, figure.colour, also=figure.kind)


def _shape(truth: Truth, rng: Random) -> _Made | None:
    figure = rng.choice(truth.figures)
    if truth.called(figure.colour) != [figure]:
        return None
    hue = figure.colour
    usual = [
        f"What shape is the {hue} object?", f"What is the shape of the {hue} thing?",
        f"Which shape is {hue}?", f"What kind of shape is the {hue} one?",
    ]  # fmt: skip
    varied = [
        f"What shape is the {hue} object in the picture?", f"Tell me the shape of the {hue} thing.",
        f"What shape does the {hue} figure have in this picture?",
    ]  # fmt: skip
    return usual, varied, lambda text: Word(text, figure.kind, also=figure.colour)


def _count(truth: Truth, rng: Random) -> _Made | None:
    form = rng.choice(("all", "all", "kind", "colour", "both"))
    near = rng.choice(truth.figures)
    kind = near.kind if rng.random() < 0.6 else rng.choice(SHAPES)
    hue = near.colour if rng.random() < 0.6 else rng.choice(COLOURS)
    noun, phrase = {
        "all": ("shapes", ""),
        "kind": (f"{kind}s", kind),
        "colour": (f"{hue} shapes", hue),
        "both": (f"{hue} {kind}s", f"{hue} {kind}"),
    }[form]
    usual = [
        f"How many {noun} are there?", f"How many {noun} do you see?",
        f"How many {noun} are in the picture?", f"Count the {noun}.",
    ]  # fmt: skip
    varied = [
        f"How many {noun} are there in this picture?", f"Can you count the {noun}?",
        f"Tell me how many {noun} there are.",
    ]  # fmt: skip
    return usual, varied, lambda text: Number(text, len(truth.called(phrase)))


def _is_beside(truth: Truth, rng: Random) -> _Made | None:
    pair = _two(truth, rng)
    direction = rng.choice(DIRECTIONS)
    verdict = pair and truth.lies(pair[0], direction, pair[1])
    if pair is None or verdict is None:
        return None
    _, _, one, other = pair
    usual = [f"Is {one} {relation} {other}?" for relation in _RELATION[direction]]
    varied = [
        f"Is {one} {_RELATION[direction][0]} {other} in the picture?",
        f"Do you see {one} {_RELATION[direction][0]} {other}?",
    ]
    return usual, varied, lambda text: YesNo(text, bool(verdict))


def _which_side(truth: Truth, rng: Random) -> _Made | None:
    pair = _two(truth, rng)
    sides: tuple[Direction, Direction] = rng.choice((("left", "right"), ("above", "below")))
    verdict = pair and truth.lies(pair[0], sides[0], pair[1])
    if pair is None or verdict is None:
        return None
    _, _, one, other = pair
    if sides[0] == "left":
        usual = [
            f"Is {one} to the left or to the right of {other}?",
            f"Is {one} left or right of {other}?",
        ]
        varied = [f"Is {one} on the left side or on the right side of {other}?"]
    else:
        usual = [f"Is {one} above or below {other}?"]
        varied = [f"Is {one} above {other} or below it?"]
    return usual, varied, lambda text: Sides(text, frozenset({sides[not verdict]}))


def _beside(truth: Truth, rng: Random) -> _Made | None:
    figure, direction = rng.choice(truth.figures), rng.choice(DIRECTIONS)
    phrase = _the(truth, figure, rng)
    verdicts = [(other, truth.lies(other, direction, figure)) for other in truth.others(figure)]
    found = [other for other, verdict in verdicts if verdict]
    if phrase is None or len(found) != 1 or any(verdict is None for _, verdict in verdicts):
        return None
    where = f"{_RELATION[direction][0]} {phrase}"
    usual = [f"What is {where}?", f"What do you see {where}?"]
    varied = [f"What can you see {where}?", f"What is {where} in the picture?"]
    return usual, varied, lambda text: _one_of(text, truth, found[0])


def _furthest(truth: Truth, rng: Random) -> _Made | None:
    figure, direction = rng.choice(truth.figures), rng.choice(DIRECTIONS)
    if len(truth.figures) < 2:
        return None
    if not all(truth.lies(figure, direction, other) for other in truth.others(figure)):
        return None
    short, long = _END[direction]
    usual = [f"Which is the {short} shape?", f"What is the {short} shape?"]
    varied = [f"Which shape is {long}?", f"Which object is the {short} one?"]
    return usual, varied, lambda text: _one_of(text, truth, figure)


def _size(truth: Truth, rng: Random) -> _Made | None:
    figure = rng.choice(truth.figures)
    others = truth.others(figure)
    if others and all(truth.is_bigger(figure, other) for other in others):
        word = rng.choice(("biggest", "largest"))
    elif others and all(truth.is_bigger(other, figure) for other in others):
        word = "smallest"
    else:
        return None
    usual = [f"Which shape is the {word}?", f"What is the {word} shape?"]
    varied = [f"Which of the shapes is the {word}?", f"Can you tell me which shape is the {word}?"]
    if rng.random() < 0.3:
        usual = [f"What colour is the {word} shape?"]
        varied = [f"What is the colour of the {word} shape?"]
        return usual, varied, lambda text: Word(text, figure.colour, also=figure.kind)
    return usual, varied, lambda text: _one_of(text, truth, figure)


def _bigger(truth: Truth, rng: Random) -> _Made | None:
    pair = _two(truth, rng)
    verdict = pair and truth.is_bigger(pair[0], pair[1])
    if pair is None or verdict is None:
        return None
    one, other, first, second = pair
    big = rng.random() < 0.5
    word = rng.choice(("bigger", "larger")) if big else "smaller"
    if rng.random() < 0.4:
        winner = one if verdict == big else other
        usual = [f"Which is {word}, {first} or {second}?"]
        varied = [f"Which one is {word}, {first} or {second}?"]
        return usual, varied, lambda text: _one_of(text, truth, winner)
    usual = [f"Is {first} {word} than {second}?"]
    varied = [f"Is {first} {word} than {second} in this picture?"]
    return usual, varied, lambda text: YesNo(text, verdict == big)


def _present(truth: Truth, rng: Random) -> _Made | None:
    near = rng.choice(truth.figures)
    if rng.random() < 0.5:
        noun = rng.choice((near.name, near.name, near.kind, f"{near.colour} shape"))
    else:
        kind, hue = rng.choice(SHAPES), rng.choice(COLOURS)
        # Half true is harder than wholly wrong.
        half = f"{near.colour} {kind}", f"{hue} {near.kind}"
        noun = rng.choice((*half, f"{hue} {kind}", kind, f"{hue} shape"))
    yes = bool(truth.called(noun.removesuffix(" shape")))
    usual = [
        f"Is there {_a(noun)}?", f"Is there {_a(noun)} in the picture?", f"Do you see {_a(noun)}?",
    ]  # fmt: skip
    varied = [f"Can you see {_a(noun)} in this picture?", f"Is {_a(noun)} in the picture?"]
    return usual, varied, lambda text: YesNo(text, yes)


def _attribute(truth: Truth, rng: Random) -> _Made | None:
    figure = rng.choice(truth.figures)
    true = rng.random() < 0.5
    if rng.random() < 0.5:
        hue = figure.colour if true else rng.choice([c for c in COLOURS if c != figure.colour])
        if truth.called(figure.kind) != [figure]:
            return None
        usual = [f"Is the {figure.kind} {hue}?"]
        varied = [f"Is the {figure.kind} in the picture {hue}?"]
    else:
        kind = figure.kind if true else rng.choice([k for k in SHAPES if k != figure.kind])
        if truth.called(figure.colour) != [figure]:
            return None
        usual = [f"Is the {figure.colour} shape {_a(kind)}?"]
        varied = [f"Is the {figure.colour} shape in the picture {_a(kind)}?"]
    return usual, varied, lambda text: YesNo(text, true)


def _describe(truth: Truth, rng: Random) -> _Made | None:
    usual = [
        "Describe the picture.", "Please describe the picture.", "Describe what you see.",
        "What is in the picture?", "What do you see?",
    ]  # fmt: skip
    varied = ["Can you describe what is in this picture?", "Please tell me what you see."]
    names = tuple(figure.name for figure in truth.figures)
    places = tuple(_place(*truth.place(figure)) for figure in truth.figures)
    return usual, varied, lambda text: Figures(text, names, places)


def _place(x: float, y: float) -> Place:
    """Where something at these shares of width and height may be said to be."""
    return Place(_third(x, "left", "right"), _third(y, "top", "bottom"))


def _third(share: float, low: str, high: str) -> frozenset[str]:
    fits = ((low, share < 0.45), (high, share > 0.55), ("", 0.2 < share < 0.8))
    return frozenset(side for side, fit in fits if fit)


def _one_of(text: str, truth: Truth, figure: Figure) -> Expected:
    return OneOf(text, tuple(truth.names_of(figure)) or (figure.name,))


#: Kind of question -> its maker, which returns None if it finds nothing clear to ask.
KINDS: dict[str, Callable[[Truth, Random], _Made | None]] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "is it beside": _is_beside,
    "which side": _which_side,
    "what is beside": _beside,
    "furthest": _furthest,
    "size": _size,
    "bigger": _bigger,
    "is there": _present,
    "attribute": _attribute,
    "describe": _describe,
}
