"""Whether an answer is right: what it must say, and that it says nothing else that matters.

An answer is read word by word. Case, punctuation, articles, plurals and digits make no difference,
nor does the sentence around the answer, as long as it is made of plain words. A colour, shape,
number or side that was not asked for and is not in the question makes an answer wrong, and so does
a word that nobody would expect in it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields
from itertools import permutations

from tests.examination.truth import COLOURS, SHAPES

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
#: What no image holds, so that naming it is wrong.
_OTHER_COLOURS = ("black", "white", "gray", "pink", "brown", "cyan", "violet", "magenta", "gold")
_OTHER_SHAPES = ("rectangle", "oval", "ellipse", "diamond", "pentagon", "hexagon", "cross", "heart")
_HUES = frozenset((*COLOURS, *_OTHER_COLOURS))
_FORMS = frozenset((*SHAPES, *_OTHER_SHAPES))
_SIDES = frozenset(("left", "right", "above", "below", "top", "bottom", "center"))
_SYNONYMS = {
    "grey": "gray", "colour": "color", "middle": "center", "centre": "center", "upper": "top",
    "lower": "bottom", "over": "above", "higher": "above", "under": "below", "beneath": "below",
    "leftmost": "left", "rightmost": "right", "topmost": "top", "bottommost": "bottom",
    "none": "zero", "yeah": "yes", "nope": "no", "isn": "no", "not": "no", "aren": "no",
    "don": "no", "doesn": "no",
}  # fmt: skip
_SYNONYMS |= {str(value): word for value, word in enumerate(NUMBERS)}
_SYNONYMS |= {f"{form}s": form for form in _FORMS}
_PLAIN = frozenset((
    "a", "an", "the", "it", "its", "is", "are", "there", "they", "and", "or", "both", "of",
    "to", "in", "on", "at", "by", "with", "than", "that", "this", "which", "shape", "shapes",
    "object", "objects", "thing", "things", "figure", "figures", "color", "colors", "picture",
    "image", "side", "part", "i", "see", "you", "can", "has", "have", "here", "total", "only",
    "bigger", "biggest", "larger", "largest", "smaller", "smallest", "furthest", "lowest",
    "highest", "far", "same", "different", "s", "t", "corner", "empty", "nothing", "anything",
    "shows", "kind", "located", "one",
))  # fmt: skip
#: Characters that no sentence about an image holds.
_STRANGE = re.compile(r"[^\w\s.,:;!?'\"()-]")


@dataclass(frozen=True)
class Said:
    """What an answer says.

    Attributes:
        words: Its words, synonyms made equal.
        names: What it names, in order: "red circle", or "red" or "circle" alone.
        places: For each name, the sides said between it and the next.
        numbers: The numbers, as words; a "one" that stands for a noun is among them.
        sides: All sides.
    """

    words: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[frozenset[str], ...]
    numbers: tuple[str, ...]
    sides: frozenset[str]

    @property
    def verdicts(self) -> set[str]:
        """Yes, no, or both."""
        return {"yes", "no"} & set(self.words)

    @property
    def is_plain(self) -> bool:
        """Whether every word is one that an answer may hold."""
        known = _PLAIN | _HUES | _FORMS | _SIDES | {"yes", "no"} | set(NUMBERS)
        return bool(self.words) and all(word in known for word in self.words)


def read(text: str) -> Said:
    """Reads an answer or a question."""
    words = tuple(_SYNONYMS.get(w, w) for w in re.findall(r"[^\W_]+", text.lower()))
    names: list[str] = []
    places: list[set[str]] = []
    hue = ""
    for word in words:
        if word in _HUES or word in _FORMS:
            if word in _FORMS and hue:
                names[-1] = f"{hue} {word}"
            else:
                names.append(word)
                places.append(set())
            hue = word if word in _HUES else ""
        elif word in _SIDES:
            hue = ""
            if places:
                places[-1].add(word)
        elif word == "and":
            hue = ""
    return Said(
        words,
        tuple(names),
        tuple(frozenset(place) for place in places),
        tuple(word for word in words if word in NUMBERS),
        frozenset(word for word in words if word in _SIDES),
    )


@dataclass(frozen=True)
class Expected:
    """What a right answer says. Its subclasses are the kinds of answers.

    Attributes:
        question: The question's text, whose words an answer may repeat.
    """

    question: str

    def allows(self, answer: str) -> bool:
        """Whether the answer is right."""
        said = read(answer)
        return said.is_plain and not _STRANGE.search(answer) and self._allows(said)

    def __str__(self) -> str:
        """What is expected, for a list of wrong answers."""
        _, *rest = fields(self)
        value = getattr(self, rest[0].name) if rest else type(self).__name__
        return ", ".join(sorted(value)) if isinstance(value, tuple | frozenset) else str(value)

    def _allows(self, said: Said) -> bool:
        raise NotImplementedError

    def _repeats(self, said: Said) -> bool:
        """Whether all that the answer names is named in the question, and in the same order."""
        asked = read(self.question).names
        return said.names == asked[: len(said.names)]


@dataclass(frozen=True)
class YesNo(Expected):
    """Yes or no."""

    yes: bool

    def _allows(self, said: Said) -> bool:
        right = said.verdicts == {"yes" if self.yes else "no"}
        return right and self._repeats(said) and said.sides <= read(self.question).sides


@dataclass(frozen=True)
class Number(Expected):
    """How many."""

    value: int

    def _allows(self, said: Said) -> bool:
        numbers = said.numbers or ("zero",) * ("no" in said.verdicts)
        return numbers == (NUMBERS[self.value],) and self._repeats(said) and not said.sides


@dataclass(frozen=True)
class Word(Expected):
    """One colour or one kind of shape.

    Attributes:
        word: The colour or the kind.
        also: What may be said besides, because it is true of the same figure.
    """

    word: str
    also: str = ""

    def _allows(self, said: Said) -> bool:
        asked = {word for name in read(self.question).names for word in name.split()}
        named = {word for name in said.names for word in name.split()}
        plain = not said.verdicts and set(said.numbers) <= {"one"}
        return plain and self.word in named and named <= asked | {self.word, self.also}


@dataclass(frozen=True)
class OneOf(Expected):
    """One figure, by any phrase that means no other.

    Attributes:
        phrases: Such phrases.
    """

    phrases: tuple[str, ...]

    def _allows(self, said: Said) -> bool:
        if said.verdicts or set(said.numbers) - {"one"} or {"and", "or", "both"} & set(said.words):
            return False
        # "The red circle is left of the star": what follows must be in the question.
        others = set(read(self.question).names) - set(self.phrases)
        first, rest = said.names[:1], set(said.names[1:])
        return first in {(phrase,) for phrase in self.phrases} and rest <= others


@dataclass(frozen=True)
class Sides(Expected):
    """A side, such as left or above, or a place, such as top and left."""

    sides: frozenset[str]

    def _allows(self, said: Said) -> bool:
        return said.sides == self.sides and self._repeats(said) and not said.verdicts


@dataclass(frozen=True)
class Nothing(Expected):
    """There is nothing there."""

    def _allows(self, said: Said) -> bool:
        nothing = {"nothing", "empty", "zero"} & set(said.words) or "no" in said.verdicts
        return bool(nothing) and "yes" not in said.verdicts and not said.names


@dataclass(frozen=True)
class Absent(Expected):
    """The question is about a figure that is not there."""

    name: str

    def _allows(self, said: Said) -> bool:
        return said.names == (self.name,) and said.verdicts == {"no"}


@dataclass(frozen=True)
class Place:
    """Where a figure may be said to be; an empty string means that no side need be named."""

    across: frozenset[str]
    down: frozenset[str]

    def allows(self, said: frozenset[str]) -> bool:
        """Whether the sides said of it are not against the truth; silence about place is fine."""
        if not said:
            return True
        across, down = _only(said, ("left", "right")), _only(said, ("top", "bottom"))
        return across in self.across and down in self.down


def _only(said: frozenset[str], sides: tuple[str, str]) -> str:
    return " ".join(side for side in sides if side in said)


@dataclass(frozen=True)
class Figures(Expected):
    """All of these and no others, in any order, with their number if the answer gives one.

    Attributes:
        names: "red circle", or "red" or "circle" where only that is asked.
        places: Where each may be said to be; () if that does not matter.
    """

    names: tuple[str, ...]
    places: tuple[Place, ...] = ()

    def _allows(self, said: Said) -> bool:
        if Counter(said.names) != Counter(self.names) or said.verdicts:
            return False
        if set(said.numbers) - {NUMBERS[len(self.names)]}:
            return False
        return not self.places or self._places_agree(said)

    def _places_agree(self, said: Said) -> bool:
        """Whether figures of the same name can be matched so that every place fits."""
        spoken = list(zip(said.names, said.places, strict=True))
        return any(
            all(
                name == spoken[index][0] and place.allows(spoken[index][1])
                for index, name, place in zip(order, self.names, self.places, strict=True)
            )
            for order in permutations(range(len(self.names)))
        )


def expected_of(question: str, canonical: str) -> Expected:
    """What is expected where a canonical answer is all that is known."""
    said = read(canonical)
    if said.words in (("yes",), ("no",)):
        return YesNo(question, said.words == ("yes",))
    if "no" in said.verdicts:
        return Absent(question, said.names[0])
    if "nothing" in said.words or "empty" in said.words:
        return Nothing(question)
    if not said.names:
        number = said.numbers[:1]
        return Number(question, NUMBERS.index(number[0])) if number else Sides(question, said.sides)
    if len(said.names) == 1 and " " not in said.names[0]:
        return Word(question, said.names[0])
    return Figures(question, said.names, tuple(_near(place) for place in said.places if said.sides))


def _near(place: frozenset[str]) -> Place:
    """A place at most a step of a third away: thirds have no sharp borders."""
    steps = []
    for sides in (("left", "right"), ("top", "bottom")):
        side = _only(place, sides)
        steps.append(frozenset((side, "") if side else (*sides, "")))
    return Place(*steps)
