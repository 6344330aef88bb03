"""The search of a design space: every point once, and the model of costs is worth its time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from mvlm.compile.tuning.guide import NAMES, OPERATIONS, Guide
from mvlm.compile.tuning.search import PointSearch
from mvlm.compile.tuning.task import Task, workload_key
from mvlm.compile.tuning.workload import module_of, workload_of
from mvlm.schedules.cpu import KERNELS
from tests.device import device
from tests.schedules.test_design_spaces import DEFINITIONS


def task_of(name: str) -> Task:
    definition = DEFINITIONS[name]()
    module = module_of(workload_of(definition))
    with device().target:
        knobs = KERNELS.space(definition)
    return Task(name, "panel_linear", module, workload_key(module), 1, knobs, is_cold=False)


def seconds(point: Mapping[str, int]) -> float:
    """A landscape with one valley: each number away from it costs."""
    best = {"rows": 6, "side": 2, "at_once": 2, "apart": 1, "together": 2, "chunk": 2}
    away = [abs(math.log2(1 + point[name]) - math.log2(1 + at)) for name, at in best.items()]
    return 1e-3 * (1 + 0.4 * sum(away) + 0.02 * math.log2(point["stretches"]))


def search(name: str, has_guide: bool, seed: int, trials: int) -> list[float]:
    """Search with made-up times; return the best after each batch."""
    task, target = task_of(name), device().target
    found = PointSearch(task, target, Guide(seed, 2) if has_guide else None, seed)
    best, curve = float("inf"), []
    for _ in range(trials // 8):
        candidates = found.propose(8)
        times = [seconds(candidate.point or {}) for candidate in candidates]
        found.learn(candidates, times)
        best = min([best, *times])
        curve.append(best)
    return curve


def test_every_point_once() -> None:
    task = task_of("quantize_rows")
    found = PointSearch(task, device().target, None, seed=0)
    seen = []
    while candidates := found.propose(3):
        seen += [tuple(sorted((candidate.point or {}).items())) for candidate in candidates]
        found.learn(candidates, [None] * len(candidates))
    assert len(seen) == len(set(seen)) == found.size


def test_what_was_measured_before_is_not_measured_again() -> None:
    task = task_of("quantize_rows")
    known = [(task.default, 1.0), ({"rows": 77}, 1.0), ({}, 1.0)]
    found = PointSearch(task, device().target, None, seed=0, known=known)
    count = 0
    while candidates := found.propose(5):
        assert all(candidate.point != task.default for candidate in candidates)
        count += len(candidates)
        found.learn(candidates, [1.0] * len(candidates))
    assert count == found.size - 1


@pytest.mark.slow
def test_the_model_finds_in_fewer_trials() -> None:
    """It sees a landscape that is smooth; chance does not."""
    guided = [search("q4a8 linear", True, seed, 96)[-1] for seed in range(3)]
    drawn = [search("q4a8 linear", False, seed, 96)[-1] for seed in range(3)]
    assert sorted(guided)[1] < sorted(drawn)[1]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_model_knows_every_number_that_is_asked_for(name: str) -> None:
    definition = DEFINITIONS[name]()
    with device().target:
        assert {knob.name for knob in KERNELS.space(definition)} <= set(NAMES)
    assert str(definition.attrs["mvlm.op"]) in OPERATIONS
