"""Drafted tokens: guesses that the model verifies in one step, with the rows of the token itself.

A drafted token is kept if it is the one that the model chooses at its place; sampling goes on with
the answer's own random numbers, so drafts change how fast an answer comes and nothing else. How
many are worth a step follows from how often drafts were right and from what steps of so many rows
took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import mul
from typing import Literal, Protocol, TypeAlias

from mvlm.runtime.artifact.layout import MOST_FEW_ROWS

Speculation: TypeAlias = Literal["off", "ngram", "auto"]
SPECULATIONS: tuple[Speculation, ...] = ("off", "ngram", "auto")

# Tokens that have to occur again, and as many as matter.
_LEAST, _LONGEST = 2, 4
_MOST_DRAFTS = 7
_FIXED_DRAFTS = 3
# Of a success or failure in the average of its kind, and the average to begin with.
_WEIGHT, _FIRST_RATE = 0.1, 0.5
# The kind of tokens that an answer's form leaves no choice of.
FORCED = 0
# A step of k rows is expected to take so much longer for each row, until one has been measured.
_COST_OF_ROW = 0.15
# Of a step that took longer than those before, in their average.
_COST_WEIGHT = 0.2
# Seconds of a step of one row below which looking for drafts takes a part of it that is not
# negligible; then they are looked for in one of so many steps.
_SHORT_STEP, _SELDOM = 1e-3, 4
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
        self._indexed = _LEAST
        # Where each pair of tokens ended, before another token, in order.
        self._ends: dict[tuple[int, int], list[int]] = {}

    def propose(self, ids: Sequence[int], most: int) -> Draft | None:
        """Return what followed the last tokens before; see :class:`Drafter`."""
        count = len(ids)
        if count < _LEAST:
            return None
        for end in range(self._indexed, count):
            self._ends.setdefault((ids[end - 2], ids[end - 1]), []).append(end)
        self._indexed = max(self._indexed, count)
        longest, start = 0, 0
        for end in reversed(self._ends.get((ids[-2], ids[-1]), ())):
            length = _LEAST
            while length < min(_LONGEST, end) and ids[end - 1 - length] == ids[-1 - length]:
                length += 1
            if length > longest:
                longest, start = length, end
            if length == _LONGEST:
                break
        tokens = _following(ids, start, most) if longest else ()
        return Draft(tokens, longest) if tokens else None


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

    Attributes:
        mode: The same.
        most: Drafted tokens of a sequence at the most; 0 if there are none.
        is_looking: Whether this step may have drafts.
    """

    def __init__(self, mode: Speculation) -> None:
        self.mode = mode
        self.most = {"off": 0, "ngram": _FIXED_DRAFTS, "auto": _MOST_DRAFTS}[mode]
        self.is_looking = False
        self._steps = 0
        self._rates: dict[int, float] = {}
        self._costs = StepCosts()

    def begin_step(self) -> None:
        """Decide whether to look for drafts: always, or now and then where steps are short."""
        self._steps += 1
        is_due = self._steps % _SELDOM == 0 or self._costs.cost(1) >= _SHORT_STEP
        self.is_looking = self.mode == "ngram" or (self.mode == "auto" and is_due)

    def choose(self, drafts: Sequence[Draft | None]) -> list[int]:
        """Return how many tokens of each sequence's draft to verify in a step of all of them."""
        counts = [0] * len(drafts)
        # The likeliest first: a negative probability, and whose draft it is.
        candidates = sorted(
            (-chance, index)
            for index, draft in enumerate(drafts)
            if draft is not None
            for chance in accumulate(repeat(self._rate(draft.kind), len(draft.tokens)), mul)
        )[: max(0, MOST_FEW_ROWS - len(drafts))]
        if not candidates:
            return counts
        is_fixed = self.mode == "ngram"
        taken = len(candidates) if is_fixed else self._worthwhile(len(drafts), candidates)
        for _, index in candidates[:taken]:
            counts[index] += 1
        return counts

    def _worthwhile(self, rows: int, candidates: Sequence[tuple[float, int]]) -> int:
        """Return how many of the likeliest drafted rows give the most tokens a second."""
        cost = self._costs.cost
        tokens, best, taken = float(rows), rows / cost(rows) * _LEAST_GAIN, 0
        for number, (negative, _) in enumerate(candidates, 1):
            tokens -= negative
            value = tokens / cost(rows + number)
            if value > best:
                best, taken = value, number
        return taken

    def learn(self, kind: int, right: int, wrong: int) -> None:
        """Take in how many guesses of a kind were right, and wrong."""
        rate = self._rate(kind)
        for is_right in (1.0,) * right + (0.0,) * wrong:
            rate += _WEIGHT * (is_right - rate)
        self._rates[kind] = rate

    def measured(self, rows: int, seconds: float) -> None:
        """Take in what a step of so many rows took."""
        self._costs.measured(rows, seconds)

    def _rate(self, kind: int) -> float:
        return 1.0 if kind == FORCED else self._rates.get(kind, _FIRST_RATE)


class StepCosts:
    """What steps of 1 to 16 rows take, by averages of those that were measured."""

    def __init__(self) -> None:
        self._averages: dict[int, float] = {}
        # Of each size, the measured one that it is judged by, and the expected ratio.
        self._models: list[tuple[int, float]] = []

    def measured(self, rows: int, seconds: float) -> None:
        """Take in what a step of so many rows took."""
        before = self._averages.get(rows)
        if before is None:
            self._averages[rows] = seconds
            sizes = range(MOST_FEW_ROWS + 1)
            nearest = [min(self._averages, key=lambda known: abs(known - size)) for size in sizes]
            self._models = [
                (known, _expected(size) / _expected(known))
                for size, known in zip(sizes, nearest, strict=True)
            ]
            return
        # A step that was interrupted, or found cold caches, says less than one that was not.
        weight = _COST_WEIGHT if seconds > before else 1 - _COST_WEIGHT
        self._averages[rows] = before + weight * (min(seconds, 2 * before) - before)

    def cost(self, rows: int) -> float:
        """Return what a step is expected to take: in seconds, once one was measured."""
        if not self._models:
            return _expected(rows)
        known, ratio = self._models[rows]
        return self._averages[known] * ratio


def _expected(rows: int) -> float:
    return 1 + _COST_OF_ROW * (rows - 1)
