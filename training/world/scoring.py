"""Whether an answer is right: the canonical wording or a plain equivalent of it."""

from __future__ import annotations

import re

from mvlm.training.world.questions import NUMBERS
from mvlm.training.world.scene import COLOURS, SHAPES

_SYNONYMS = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "none": "zero", "no": "no",
    "yeah": "yes", "nope": "no", "centre": "center", "middle": "center", "upper": "top",
    "lower": "bottom", "below": "below", "under": "below", "over": "above", "grey": "gray",
    "color": "colour", "circles": "circle", "squares": "square", "triangles": "triangle",
    "stars": "star", "an": "a",
}  # fmt: skip
_PLACES = {"top", "bottom", "left", "right", "center"}


def words(text: str) -> list[str]:
    """Lower-case words with synonyms made equal."""
    return [_SYNONYMS.get(w, w) for w in re.findall(r"[a-z0-9]+", text.lower())]


def named(text: str) -> list[str]:
    """The shapes an answer names, sorted: "red circle", or "circle" or "red" where that is all."""
    found, colour = [], ""
    for word in words(text):
        if word in COLOURS:
            if colour:
                found.append(colour)
            colour = word
        elif word in SHAPES:
            found.append(f"{colour} {word}".strip())
            colour = ""
    return sorted([*found, colour] if colour else found)


def _described(text: str) -> list[str]:
    """Each shape of a description with its place, sorted."""
    body = text.split(":", 1)[-1]
    return sorted(
        " ".join(named(part) + [w for w in words(part) if w in _PLACES])
        for part in re.split(r",| and ", body)
    )


def is_right(kind: str, expected: str, answer: str) -> bool:
    """Whether `answer` says what `expected` (canonical) does, for a question of that kind.

    Lists may come in any order. A description counts as right if it names the right shapes, and
    their number, with not more than one place off by one word (thirds have no sharp borders).
    """
    said, wanted = words(answer), words(expected)
    if said == wanted:
        return True
    if not said or wanted[0] in ("yes", "no"):
        return bool(said) and wanted[0] == said[0]
    if expected.startswith("There is no"):
        return "no" in said and named(answer) == named(expected)
    if "no" in said or "nothing" in said or "empty" in said:
        return False
    if kind == "count":
        numbers = [w for w in said if w in NUMBERS]
        return numbers == [w for w in wanted if w in NUMBERS]
    if kind == "describe":
        return _describes(expected, answer)
    if kind in ("where", "which_side"):
        keys = _PLACES | {"above", "below"}
        return {w for w in said if w in keys} == {w for w in wanted if w in keys}
    if kind in ("colour", "shape", "what_side", "extreme", "superlative"):
        # "The circle is red." answers what "Red." does: only what was asked for counts.
        for vocabulary, other in ((COLOURS, SHAPES), (SHAPES, COLOURS)):
            if any(w in vocabulary for w in wanted) and not any(w in other for w in wanted):
                return [w for w in said if w in vocabulary] == [
                    w for w in wanted if w in vocabulary
                ]
    return bool(named(expected)) and named(answer) == named(expected)


def _describes(expected: str, answer: str) -> bool:
    if named(expected) != named(answer) or not named(expected):
        return False
    if [w for w in words(answer) if w in NUMBERS] != [w for w in words(expected) if w in NUMBERS]:
        return False
    wanted, said = _described(expected), _described(answer)
    wrong = [set(a.split()) ^ set(b.split()) for a, b in zip(wanted, said, strict=False)]
    off = [difference for difference in wrong if difference]
    return len(off) <= 1 and all(len(d - {"center"}) <= 1 for d in off)
