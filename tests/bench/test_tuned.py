"""The tables of what tuning gains, and of what the model of costs is worth."""

from __future__ import annotations

import dataclasses
import math

from mvlm.bench.searching import table as table_of_searches
from mvlm.bench.searching import trials_to_reach, turn_seconds
from mvlm.bench.tuned import Turn, table
from mvlm.compile.tuning.log import Database, TaskResult, TuningRecord
from mvlm.runtime.chat import Stats

STATS = Stats(
    vision_ms=100.0, prefill_tok_s=200.0, decode_tok_s=40.0, first_token_ms=300.0, peak_rss_bytes=1
)


def test_gains_are_medians_of_ratios_of_neighbouring_runs() -> None:
    """The machine gets slower by half while they take turns: that is nobody's gain."""
    turns = []
    for slower in (1.0, 1.5, 2.0):
        default = dataclasses.replace(STATS, decode_tok_s=40 / slower, vision_ms=100 * slower)
        tuned = dataclasses.replace(STATS, decode_tok_s=44 / slower, vision_ms=80 * slower)
        turns.append(Turn(default, tuned))
    text = table("a model", turns, {"tuned": 3, "default": 7}, 3000, 1000)
    assert "3 of 10 kernels tuned, of a log of 3,000 trials, 1,000 of them with this model" in text
    assert "| decode, tok/s | 26.7 | 29.3 | +10.0% | 3 of 3 |" in text
    assert "| vision, ms | 150.0 | 120.0 | +25.0% | 3 of 3 |" in text
    assert "| prefill, tok/s | 200.0 | 200.0 | +0.0% | 0 of 3 |" in text


def task_result(workload: int) -> TaskResult:
    return TaskResult("k", "linear", workload, 1, 1.0, None, 0.0, 0.0, None, None, "")


def test_a_turn_begins_when_all_defaults_are_known() -> None:
    times = [(0, 1.0), (1, 2.0), (0, 3.0), (1, 1.5), (2, 0.1), (0, 0.5)]
    records = tuple(
        TuningRecord(place, [[[], []], [seconds], {}, None]) for place, seconds in times
    )
    database = Database(("a", "b", "c"), records, {"a": task_result(0), "b": task_result(1)})
    curve = turn_seconds(database, {"a": 1, "b": 10})
    assert curve == [21.0, 21.0, 16.0, 15.5]
    assert trials_to_reach(curve, 16.0) == 2
    assert math.isinf(trials_to_reach(curve, 1.0))


def test_the_table_of_searches() -> None:
    guided, drawn = [[1.0, 0.9, 0.81, 0.8]] * 3, [[1.2, 1.0, 0.95, 0.83]] * 3
    text = table_of_searches({True: guided, False: drawn}, "a CPU")
    assert "| trials | 0 | 5% near | 2% near | 1% near |" in text
    assert "| with the model of costs | 100.0 | 2 | 2 | 3 |" in text
    assert "| by chance | 120.0 | 3 | never | never |" in text
