"""Trials go to the tasks that take time, and where they still help."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

from mvlm.compile.tuning.task_record import TaskRecord
from mvlm.compile.tuning.task_scheduler import TRIALS_PER_ITER, TaskScheduler


def record(seconds: float, **state: Any) -> TaskRecord:
    """Return a task that takes so many seconds of a chat turn."""
    task = cast("Any", SimpleNamespace(weight=1))
    return TaskRecord(task, cast("Any", None), 0, best_seconds=seconds, **state)


def distribute(
    records: list[TaskRecord], trials: int, improving: Collection[int] = ()
) -> list[int]:
    """Play a search in which only some tasks improve; return each task's trials."""
    for _ in range(trials // TRIALS_PER_ITER):
        task_id = TaskScheduler.next_task_id(records)
        if task_id is None:
            break
        chosen = records[task_id]
        chosen.trials += TRIALS_PER_ITER
        chosen.stale_rounds = 0 if task_id in improving else chosen.stale_rounds + 1
    return [each.trials for each in records]


def test_the_slow_kernel_gets_most_trials() -> None:
    trials = distribute([record(0.1), record(1.0), record(0.3)], 1600)
    assert trials[1] > trials[2] > trials[0] > 0


def test_an_improving_task_goes_on() -> None:
    stale, improving = distribute([record(1.0), record(1.0)], 1600, improving={1})
    assert improving > 3 * stale


def test_a_task_without_a_share_gets_no_trials() -> None:
    assert distribute([record(1.0), record(1e-5)], 1600)[1] == 0


def test_no_task_is_left() -> None:
    next_task_id = TaskScheduler.next_task_id
    assert next_task_id([record(1.0, is_terminated=True)]) is None
    assert next_task_id([]) is None
    assert next_task_id([record(1.0), record(0.5)], busy=[0]) == 1
    assert next_task_id([record(1.0)], busy=[0]) is None
