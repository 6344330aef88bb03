"""Drafted tokens: guesses that the model verifies in one step, with the rows of the token itself.

A drafted token is kept if it is the one that the model chooses at its place; sampling goes on with
the answer's own random numbers, so drafts change how fast an answer comes and nothing else. How
many are worth a step follows from how often drafts were right and from what steps of so many rows
took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from mvlm.runtime.artifact.layout import MOST_FEW_ROWS

Speculation: TypeAlias = Literal["off", "ngram", "auto"]
SPECULATIONS: tuple[Speculation, ...] = ("off", "ngram", "auto")

_NGRAMS = (4, 3, 2)
_MOST_DRAFTS = 7
_FIXED_DRAFTS = 3
# Of a success or failure in the average of its kind, and the average to begin with.
_WEIGHT, _FIRST_RATE = 0.1, 0.5
# A step of k rows is expected to take so much longer for each row, until one has been measured.
_COST_OF_ROW = 0.15
# Of a step that took longer than those before, in their average.
_COST_WEIGHT = 0.2
# Steps are planned by averages: a smaller gain may be none.
_LEAST_GAIN = 1.03


@dataclass(frozen=True)
class Draft:
    """Guessed tokens.

    Attributes:
        tokens: The guesses, in order.
        kind: What they were guessed by; guesses of a kind are right about equally often.
    """

    tokens: tuple[int, ...]
    kind: int


class Drafter(Protocol):
    """Guesses the tokens that follow a sequence."""

    def propose(self, ids: Sequence[int], most: int) -> Draft | None:
        """Return up to `most` guesses for what follows, or None.

        Args:
            ids: The prompt and the answer so far, an image as -200. It grows between calls, and
                what was there stays.
            most: At least 1.
        """


class NgramDrafter:
    """Guesses what followed the last tokens when they occurred before.

    Of the places in which the last four, three or two tokens occurred before, the latest of the
    longest counts.
    """

    def __init__(self) -> None:
        self._indexed = 0
        # Where each n-gram last ended, before another token.
        self._ends: dict[tuple[int, ...], int] = {}

    def propose(self, ids: Sequence[int], most: int) -> Draft | None:
        """Return what followed the last tokens before; see :class:`Drafter`."""
        for end in range(self._indexed, len(ids)):
            for n in _NGRAMS:
                if end >= n:
                    self._ends[tuple(ids[end - n : end])] = end
        self._indexed = len(ids)
        for n in _NGRAMS:
            start = self._ends.get(tuple(ids[-n:])) if len(ids) >= n else None
            if start is not None:
                tokens = _following(ids, start, most)
                return Draft(tokens, n) if tokens else None
        return None


def _following(ids: Sequence[int], start: int, most: int) -> tuple[int, ...]:
    """Return the tokens from a place on; what repeats itself goes on repeating."""
    found: list[int] = []
    for at in range(start, start + most):
        token = ids[at] if at < len(ids) else found[at - len(ids)]
        if token < 0:
            break
        found.append(token)
    return tuple(found)


class DraftPlanner:
    """Decides how many drafted rows a step takes.

    Args:
        mode: ``off``, ``ngram`` for a fixed number, or ``auto`` for as many as pay.
    """

    def __init__(self, mode: Speculation) -> None:
        self.mode = mode
        self._rates: dict[int, float] = {}
        self._costs: dict[int, float] = {}

    @property
    def most(self) -> int:
        """Drafted tokens of a sequence at the most; 0 if there are none."""
        return {"off": 0, "ngram": _FIXED_DRAFTS, "auto": _MOST_DRAFTS}[self.mode]

    def choose(self, drafts: Sequence[Draft | None]) -> list[int]:
        """Return how many tokens of each sequence's draft to verify in a step of all of them."""
        rows = len(drafts)
        candidates = sorted(
            (
                (-(self._rate(draft.kind) ** (number + 1)), index)
                for index, draft in enumerate(drafts)
                if draft is not None
                for number in range(len(draft.tokens))
            ),
        )[: max(0, MOST_FEW_ROWS - rows)]
        taken = len(candidates) if self.mode == "ngram" else self._worthwhile(rows, candidates)
        counts = [0] * rows
        for _, index in candidates[:taken]:
            counts[index] += 1
        return counts

    def _worthwhile(self, rows: int, candidates: Sequence[tuple[float, int]]) -> int:
        """Return how many of the likeliest drafted rows give the most tokens a second."""
        tokens, best, taken = float(rows), rows / self._cost(rows) * _LEAST_GAIN, 0
        for number, (negative, _) in enumerate(candidates, 1):
            tokens -= negative
            value = tokens / self._cost(rows + number)
            if value > best:
                best, taken = value, number
        return taken

    def learn(self, kind: int, right: int, wrong: int) -> None:
        """Take in how many guesses of a kind were right, and wrong."""
        for is_right in (1.0,) * right + (0.0,) * wrong:
            self._rates[kind] = self._rate(kind) + _WEIGHT * (is_right - self._rate(kind))

    def measured(self, rows: int, seconds: float) -> None:
        """Take in what a step of so many rows took."""
        before = self._costs.get(rows, seconds)
        # A step that was interrupted, or found cold caches, says less than one that was not.
        weight = _COST_WEIGHT if seconds > before else 1 - _COST_WEIGHT
        self._costs[rows] = before + weight * (min(seconds, 2 * before) - before)

    def _rate(self, kind: int) -> float:
        return self._rates.get(kind, _FIRST_RATE)

    def _cost(self, rows: int) -> float:
        """Return what a step is expected to take, by the measured one of the nearest size."""
        if rows in self._costs:
            return self._costs[rows]
        nearest = min(self._costs, key=lambda known: abs(known - rows), default=None)
        base = 1.0 if nearest is None else self._costs[nearest] / _expected(nearest)
        return base * _expected(rows)


def _expected(rows: int) -> float:
    return 1 + _COST_OF_ROW * (rows - 1)
