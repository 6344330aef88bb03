"""A lazy shuffle: every order is as likely as any other, and little is remembered."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

from mvlm.compile.calibration_data.shuffle import shuffled


def test_each_number_comes_once() -> None:
    for count in (0, 1, 2, 3, 50, 1000):
        for seed in range(20):
            assert sorted(shuffled(count, Random(seed))) == list(range(count))


def test_all_orders_are_equally_likely() -> None:
    rng = Random(0)
    orders = Counter(tuple(shuffled(4, rng)) for _ in range(24_000))
    assert len(orders) == 24
    assert all(850 < count < 1150 for count in orders.values())


def test_the_first_of_very_many_are_found_at_once() -> None:
    first = list(islice(shuffled(10**15, Random(1)), 1000))
    assert len(set(first)) == 1000 and max(first) > 9 * 10**14
    assert first == list(islice(shuffled(10**15, Random(1)), 1000))
