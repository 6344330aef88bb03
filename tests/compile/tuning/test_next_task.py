"""Trials go where time is, and where they still help."""

from __future__ import annotations

from mvlm.compile.tuning.allotment import TRIALS_PER_ITER, Claim, next_task_id


def allot(claims: list[Claim], trials: int, helps: set[int] = frozenset()) -> list[int]:  # type: ignore[assignment]
    """Play a search in which only some tasks get better."""
    counts = [0] * len(claims)
    for _ in range(trials // TRIALS_PER_ITER):
        place = next_task_id(claims)
        if place is None:
            break
        counts[place] += TRIALS_PER_ITER
        claims[place].trials += TRIALS_PER_ITER
        claims[place].stale_rounds = 0 if place in helps else claims[place].stale_rounds + 1
    return counts


def test_the_slow_kernel_gets_most() -> None:
    counts = allot([Claim(0.1), Claim(1.0), Claim(0.3)], 1600)
    assert counts[1] > counts[2] > counts[0] > 0


def test_what_gets_better_goes_on() -> None:
    stuck, better = allot([Claim(1.0), Claim(1.0)], 1600, helps={1})
    assert better > 3 * stuck


def test_what_takes_no_time_gets_nothing() -> None:
    assert allot([Claim(1.0), Claim(1e-5)], 1600)[1] == 0


def test_all_over_is_the_end() -> None:
    assert next_task_id([Claim(1.0, is_terminated=True)]) is None
    assert next_task_id([]) is None
    assert next_task_id([Claim(1.0), Claim(0.5)], busy=[0]) == 1
    assert next_task_id([Claim(1.0)], busy=[0]) is None
