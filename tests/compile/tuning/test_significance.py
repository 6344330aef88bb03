"""Which candidates are significantly faster than the default."""

from __future__ import annotations

import numpy as np
import pytest

from mvlm.compile.tuning.significance import MIN_GAIN, REPEAT, compare


def times(speed: float, spread: float, seed: int, drift: float = 0.0) -> list[float]:
    random = np.random.default_rng(seed)
    slope = np.exp(drift * np.linspace(0, 1, REPEAT))
    return list(speed * slope * np.exp(spread * random.standard_normal(REPEAT)))


def test_a_much_faster_candidate_wins() -> None:
    comparison = compare(times(1, 0.02, 0), times(0.8, 0.02, 1), times(1, 0.02, 2))
    assert comparison.wins
    assert comparison.gain == pytest.approx(0.2, abs=0.02)
    assert comparison.default_seconds == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.02, 0.2])
def test_the_default_itself_seldom_wins(spread: float) -> None:
    """Two standard errors, one side: 2.3 % by chance, fewer with the least gain."""
    wins = sum(
        compare(*(times(1, spread, 3 * seed + place) for place in range(3))).wins
        for seed in range(400)
    )
    assert wins <= 0.06 * 400


def test_drift_of_the_machine_is_no_gain() -> None:
    """It gets faster by a third during the comparison."""
    comparison = compare(*(times(1, 0.005, seed, drift=-0.4) for seed in range(3)))
    assert not comparison.wins and abs(comparison.gain) < 0.01


def test_a_default_that_differs_from_itself_is_noise() -> None:
    comparison = compare([1.0] * REPEAT, [0.97] * REPEAT, [1.1] * REPEAT)
    assert comparison.noise >= 0.04
    assert not compare([1.0] * REPEAT, [1 - MIN_GAIN / 2] * REPEAT, [1.0] * REPEAT).wins
