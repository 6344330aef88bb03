"""Whether a candidate is significantly faster than the default.

Candidates are measured interleaved with the default, which is measured twice in each repeat. The
difference between its two times is the machine's drift. A candidate wins only if its gain exceeds
that drift plus the sampling error of the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

REPEAT = 15
# A smaller gain is not worth deviating from the default.
MIN_GAIN = 0.005
# The standard error of a normal sample's median, in standard deviations over sqrt(n), and the
# standard deviation in median absolute deviations.
_MEDIAN_ERROR, _MAD_TO_SIGMA = 1.2533, 1.4826
_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Comparison:
    """A candidate compared with the default.

    Attributes:
        default_seconds: The default's median.
        seconds: The candidate's median.
        gain: The median over the repeats of the candidate's gain, relative to the default's time.
        noise: Smallest resolvable relative difference.
    """

    default_seconds: float
    seconds: float
    gain: float
    noise: float

    @property
    def wins(self) -> bool:
        """Whether the candidate is significantly faster."""
        return self.gain > self.noise

    @property
    def loses(self) -> bool:
        """Whether the candidate is significantly slower."""
        return self.gain < -self.noise


def compare(
    default: Sequence[float], candidate: Sequence[float], again: Sequence[float]
) -> Comparison:
    """Compare a candidate with the default.

    Args:
        default: The default's time in each repeat, measured before the candidate.
        candidate: The candidate's time in each repeat.
        again: The default's time in each repeat, measured after the candidate.
    """
    first, tried, last = (np.log(np.asarray(times)) for times in (default, candidate, again))
    ratios, shifts = tried - (first + last) / 2, last - first
    noise = abs(float(np.median(shifts))) / 2 + _STANDARD_ERRORS * _error_of_median(ratios)
    return Comparison(
        default_seconds=float(np.median(np.exp((first + last) / 2))),
        seconds=float(np.median(candidate)),
        gain=1 - math.exp(float(np.median(ratios))),
        noise=max(MIN_GAIN, noise),
    )


def _error_of_median(values: npt.NDArray[np.float64]) -> float:
    deviation = _MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
    return _MEDIAN_ERROR * deviation / math.sqrt(len(values))
