"""Searches of a kernel's knobs: every config once, and fewer trials with the cost model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from mvlm.compile.tuning.cost_model import KNOB_NAMES, OPERATIONS, CostModel
from mvlm.compile.tuning.search_strategy import KnobSearch
from mvlm.compile.tuning.task import Task, kernel_task
from mvlm.schedules.cpu.kernels import KERNELS
from tests.device import device
from tests.schedules.test_design_spaces import OPERATIONS as EXAMPLES


def task_of(name: str) -> Task:
    with device().target:
        knobs = KERNELS.space(EXAMPLES[name])
    assert knobs is not None
    return kernel_task(name, EXAMPLES[name], 1, knobs)


def seconds(config: Mapping[str, int]) -> float:
    """A landscape with one valley: each number away from it costs."""
    best = {
        "tile_m": 6,
        "tile_panels": 2,
        "k_unroll": 2,
        "unpack_once": 1,
        "tiles_per_task": 2,
        "k_block": 2,
    }
    away = [abs(math.log2(1 + config[name]) - math.log2(1 + at)) for name, at in best.items()]
    return 1e-3 * (1 + 0.4 * sum(away) + 0.02 * math.log2(config["num_chunks"]))


def search(name: str, has_cost_model: bool, seed: int, trials: int) -> list[float]:
    """Search with made-up times; return the best after each batch."""
    task, target = task_of(name), device().target
    found = KnobSearch(task, target, CostModel(seed, 2) if has_cost_model else None, seed)
    best, curve = float("inf"), []
    for _ in range(trials // 8):
        candidates = found.generate_measure_candidates(8)
        times = [seconds(candidate.config or {}) for candidate in candidates]
        found.notify_runner_results(candidates, times)
        best = min([best, *times])
        curve.append(best)
    return curve


def test_every_config_once() -> None:
    task = task_of("quantize_rows")
    found = KnobSearch(task, device().target, None, seed=0)
    seen = []
    while candidates := found.generate_measure_candidates(3):
        seen += [tuple(sorted((candidate.config or {}).items())) for candidate in candidates]
        found.notify_runner_results(candidates, [None] * len(candidates))
    assert len(seen) == len(set(seen)) == found.size


def test_what_was_measured_before_is_not_measured_again() -> None:
    task = task_of("quantize_rows")
    known = [(task.default_config, 1.0), ({"tile_m": 77}, 1.0), ({}, 1.0)]
    found = KnobSearch(task, device().target, None, seed=0, known=known)
    count = 0
    while candidates := found.generate_measure_candidates(5):
        assert all(candidate.config != task.default_config for candidate in candidates)
        count += len(candidates)
        found.notify_runner_results(candidates, [1.0] * len(candidates))
    assert count == found.size - 1


@pytest.mark.slow
def test_the_cost_model_needs_fewer_trials() -> None:
    """The times are smooth in the knobs."""
    guided = [search("q4a8 linear", True, seed, 96)[-1] for seed in range(3)]
    drawn = [search("q4a8 linear", False, seed, 96)[-1] for seed in range(3)]
    assert sorted(guided)[1] < sorted(drawn)[1]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_cost_model_knows_every_knob_and_operation(name: str) -> None:
    with device().target:
        assert {knob.name for knob in KERNELS.space(EXAMPLES[name]) or ()} <= set(KNOB_NAMES)
    assert type(EXAMPLES[name]) in OPERATIONS
