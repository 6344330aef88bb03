"""The tables of the gain by tuning, and of the ablation of the cost model."""

from __future__ import annotations

import dataclasses
import math

from mvlm.bench.studies.cost_model_ablation import table as ablation_table
from mvlm.bench.studies.cost_model_ablation import trials_to_reach, weighted_seconds
from mvlm.bench.studies.tuning_gain import Pair, table
from mvlm.compile.tuning_log import Database, TaskResult, TuningRecord
from mvlm.runtime.completion import Stats

STATS = Stats(
    vision_ms=100.0,
    prefill_tok_s=200.0,
    decode_tok_s=40.0,
    first_token_ms=300.0,
    drafted=0,
    accepted=0,
    tokens_per_step=1.0,
    peak_rss_bytes=1,
)


def test_tuning_gains_are_medians_of_interleaved_ratios() -> None:
    """A machine that slows down by half between rounds changes no gain."""
    pairs = []
    for slower in (1.0, 1.5, 2.0):
        default = dataclasses.replace(STATS, decode_tok_s=40 / slower, vision_ms=100 * slower)
        tuned = dataclasses.replace(STATS, decode_tok_s=44 / slower, vision_ms=80 * slower)
        pairs.append(Pair(default, tuned))
    text = table("a model", pairs, {"tuned": 3, "default": 7}, 3000, 1000)
    words = "3 of 10 kernels are tuned by a log of\n3,000 trials, 1,000 of them with this model"
    assert words in text
    assert "| decode, tok/s | 26.7 | 29.3 | +10.0% | 3 of 3 |" in text
    assert "| vision, ms | 150.0 | 120.0 | +25.0% | 3 of 3 |" in text
    assert "| prefill, tok/s | 200.0 | 200.0 | +0.0% | 0 of 3 |" in text


def task_result(workload: int) -> TaskResult:
    return TaskResult("k", "linear", workload, 1, 1.0, None, 0.0, 0.0, None, None, "")


def test_the_ablation_curve_starts_when_all_defaults_are_measured() -> None:
    times = [(0, 1.0), (1, 2.0), (0, 3.0), (1, 1.5), (2, 0.1), (0, 0.5)]
    records = tuple(
        TuningRecord(place, [[[], []], [seconds], {}, None]) for place, seconds in times
    )
    database = Database(("a", "b", "c"), records, {"a": task_result(0), "b": task_result(1)})
    curve = weighted_seconds(database, {"a": 1, "b": 10})
    assert curve == [21.0, 21.0, 16.0, 15.5]
    assert trials_to_reach(curve, 16.0) == 2
    assert math.isinf(trials_to_reach(curve, 1.0))


def test_the_ablation_table() -> None:
    guided, drawn = [[1.0, 0.9, 0.81, 0.8]] * 3, [[1.2, 1.0, 0.95, 0.83]] * 3
    text = ablation_table({True: guided, False: drawn}, "a CPU")
    assert "| trials | 0 | within 5% | within 2% | within 1% |" in text
    assert "| with the cost model | 100.0 | 2 | 2 | 3 |" in text
    assert "| random | 120.0 | 3 | never | never |" in text
