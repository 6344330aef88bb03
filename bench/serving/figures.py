"""Throughput and percentiles of what clients noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mvlm.bench.serving.client import Exchange


@dataclass(frozen=True)
class Figures:
    """A server under a load.

    Attributes:
        answers: How many came.
        failed: How many did not.
        tok_s: Tokens of all clients in a second.
        first_ms: From a question to its first text: the median, and the 99th percentile.
        between_ms: Between two events with text: the median, and the 99th percentile.
    """

    answers: int
    failed: int
    tok_s: float
    first_ms: tuple[float, float]
    between_ms: tuple[float, float]


def figures(exchanges: Sequence[Exchange], seconds: float) -> Figures:
    """Sum up what came in so many seconds."""
    good = [each for each in exchanges if each.error is None]
    first = [each.times[0] for each in good if each.times]
    between = [later - time for each in good for time, later in pairwise(each.times)]
    return Figures(
        len(good),
        len(exchanges) - len(good),
        sum(each.tokens for each in good) / seconds,
        _percentiles(first),
        _percentiles(between),
    )


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    median, high = np.percentile(values, (50, 99))
    return 1e3 * float(median), 1e3 * float(high)
