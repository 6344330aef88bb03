"""The last word: candidates against the default, in turns, and what of it is noise.

The default takes part twice. What its two appearances differ by is what this machine differs by
from one moment to the next; a candidate has to be faster by more than that, and by more than what
chance does to a median of so many rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUNDS = 15
# Less is not worth another kernel than everybody else's.
LEAST_GAIN = 0.005
# A median's standard error, of normal deviations; and a deviation from its median one.
_MEDIAN_ERROR, _FROM_MEDIAN = 1.2533, 1.4826
_ERRORS = 2.0


@dataclass(frozen=True)
class Verdict:
    """How a candidate did against the default.

    Attributes:
        default_seconds: The default's median.
        seconds: The candidate's.
        gain: The median of what it took less than the default in the same round, as a share.
        noise: What a gain has to exceed.
    """

    default_seconds: float
    seconds: float
    gain: float
    noise: float

    @property
    def wins(self) -> bool:
        """Whether the candidate is faster beyond the noise."""
        return self.gain > self.noise

    @property
    def loses(self) -> bool:
        """Whether the candidate is slower beyond the noise."""
        return self.gain < -self.noise


def judge(default: Sequence[float], candidate: Sequence[float], again: Sequence[float]) -> Verdict:
    """Judge a candidate by its rounds.

    Args:
        default: The default's time in each round.
        candidate: The candidate's.
        again: The default's once more, at the round's other end.
    """
    first, tried, last = (np.log(np.asarray(times)) for times in (default, candidate, again))
    ratios, shifts = tried - (first + last) / 2, last - first
    noise = abs(float(np.median(shifts))) / 2 + _ERRORS * _error_of_median(ratios)
    return Verdict(
        default_seconds=float(np.median(np.exp((first + last) / 2))),
        seconds=float(np.median(candidate)),
        gain=1 - math.exp(float(np.median(ratios))),
        noise=max(LEAST_GAIN, noise),
    )


def _error_of_median(values: npt.NDArray[np.float64]) -> float:
    deviation = _FROM_MEDIAN * float(np.median(np.abs(values - np.median(values))))
    return _MEDIAN_ERROR * deviation / math.sqrt(len(values))
