"""Who wins against the default, and what is noise."""

from __future__ import annotations

import numpy as np
import pytest

from mvlm.compile.tuning.contest import LEAST_GAIN, ROUNDS, judge


def times(speed: float, spread: float, seed: int, drift: float = 0.0) -> list[float]:
    random = np.random.default_rng(seed)
    slope = np.exp(drift * np.linspace(0, 1, ROUNDS))
    return list(speed * slope * np.exp(spread * random.standard_normal(ROUNDS)))


def test_what_is_much_faster_wins() -> None:
    verdict = judge(times(1, 0.02, 0), times(0.8, 0.02, 1), times(1, 0.02, 2))
    assert verdict.wins
    assert verdict.gain == pytest.approx(0.2, abs=0.02)
    assert verdict.default_seconds == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.02, 0.2])
def test_the_default_itself_seldom_wins(spread: float) -> None:
    """Two standard errors, one side: 2.3 % by chance, fewer with the least gain."""
    wins = sum(
        judge(*(times(1, spread, 3 * seed + place) for place in range(3))).wins
        for seed in range(400)
    )
    assert wins <= 0.06 * 400


def test_a_drift_of_the_machine_is_no_gain() -> None:
    """It gets faster by a third while they take turns."""
    verdict = judge(*(times(1, 0.005, seed, drift=-0.4) for seed in range(3)))
    assert not verdict.wins and abs(verdict.gain) < 0.01


def test_a_default_that_differs_from_itself_is_noise() -> None:
    verdict = judge([1.0] * ROUNDS, [0.97] * ROUNDS, [1.1] * ROUNDS)
    assert verdict.noise >= 0.04
    assert not judge([1.0] * ROUNDS, [1 - LEAST_GAIN / 2] * ROUNDS, [1.0] * ROUNDS).wins
