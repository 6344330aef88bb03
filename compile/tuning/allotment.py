"""Which task is measured next: trials go where time is, and where they still help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What a task's claim is multiplied with after a batch that found nothing better.
_STALE_DISCOUNT = 0.75
# Trials are counted from here: a task's first batch is worth more than its later ones, not all.
_TRIALS_OFFSET = 16
# Smaller shares of a turn are not worth a batch.
MIN_SHARE = 0.001
TRIALS_PER_ITER = 16


@dataclass
class Claim:
    """One task's claim to the next batch.

    Attributes:
        seconds: What a turn spends on it, by the best that is known.
        trials: TuningRecord so far, in all runs.
        stale_rounds: Batches since the last that found something better.
        is_terminated: Whether nothing is left to measure.
    """

    seconds: float
    trials: int = 0
    stale_rounds: int = 0
    is_terminated: bool = False

    def weight(self, total: float) -> float:
        """Return how much the task's next batch is worth."""
        if self.is_terminated:
            return 0.0
        share = self.seconds / total
        if share < MIN_SHARE:
            return 0.0
        return share * _STALE_DISCOUNT**self.stale_rounds / (_TRIALS_OFFSET + self.trials)


def next_task_id(claims: Sequence[Claim], busy: Sequence[int] = ()) -> int | None:
    """Return which claim is worth most, or None if none is worth anything.

    Args:
        claims: Of all tasks.
        busy: Those whose last batch is still being measured.
    """
    total = sum(claim.seconds for claim in claims)
    weights = [0.0 if place in busy else claim.weight(total) for place, claim in enumerate(claims)]
    best = max(range(len(claims)), key=weights.__getitem__, default=None)
    return best if best is not None and weights[best] > 0 else None
