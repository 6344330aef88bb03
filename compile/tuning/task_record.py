"""What a tuning run knows of one task, and how a log's measurements restore it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.tuning.cost_model import CostModel
from mvlm.compile.tuning.measure_candidate import MeasureCandidate, make_candidate, replay_trace
from mvlm.compile.tuning.search_strategy import EvolutionarySearch, KnobSearch, SearchStrategy
from mvlm.compile.tuning.task import Task
from mvlm.compile.tuning_log import TaskResult, TuningDatabase, TuningRecord
from mvlm.compile.tuning_log.trace import try_read_config


@dataclass(frozen=True)
class Measured:
    """A candidate that was measured.

    Attributes:
        seconds: Its median.
        candidate: The candidate.
        built_library: Its library if it was built in this run.
    """

    seconds: float
    candidate: MeasureCandidate
    built_library: Path | None = None


@dataclass
class TaskRecord:
    """The state of one task's search; `TaskScheduler` alone changes it.

    Attributes:
        task: The task.
        search: Its search strategy.
        workload: Its line among the log's workloads.
        measured: The measured candidates, by their line in the log.
        trials: Candidates measured in all runs.
        new_trials: Candidates measured in this run.
        stale_rounds: Rounds since the last improvement.
        is_terminated: Whether its search is over.
        default_library: The default's library; None before it is built.
        unscheduled_library: An extracted task's unscheduled function, which computes the expected
            result.
        default_seconds: The default's median; None before it is measured.
        best_seconds: The least median so far; None before the default is measured.
        result: The result, once the task is validated.
    """

    task: Task
    search: SearchStrategy
    workload: int
    measured: dict[int, Measured] = field(default_factory=dict)
    trials: int = 0
    new_trials: int = 0
    stale_rounds: int = 0
    is_terminated: bool = False
    default_library: Path | None = None
    unscheduled_library: Path | None = None
    default_seconds: float | None = None
    best_seconds: float | None = None
    result: TaskResult | None = None

    @property
    def weighted_seconds(self) -> float:
        """The task's time in a chat turn, by its best schedule; 0 before it is measured."""
        return 0.0 if self.best_seconds is None else self.task.weight * self.best_seconds


def restore_record(
    task: Task,
    target: CompileTarget,
    cost_model: CostModel | None,
    seed: int,
    database: TuningDatabase,
    note: Callable[[str], None],
) -> TaskRecord:
    """Return a task's record with the measurements that the log has of it.

    Args:
        task: The task.
        target: The compilation's target.
        cost_model: Ranks the search's candidates; None draws them at random.
        seed: The search's seed.
        database: The log; gets the task's workload.
        note: Called with messages for the user.
    """
    values = ms.database.Workload(task.module).as_json()
    workload = database.commit_workload(json.dumps(values, separators=(",", ":")))
    records = [
        (line, record)
        for line, record in enumerate(database.contents.records)
        if record.workload == workload
    ]
    if task.operation:
        return _restore_kernel_task(task, target, cost_model, seed, workload, records)
    threads = database.provenance.threads if database.provenance else 1
    # MetaSchedule's rules parallelize for this number of cores.
    tvm_target = tvm.target.Target({**target.options, "num-cores": threads})
    measured = _replay(task, records, note)
    known = [(each.candidate, each.seconds) for each in measured.values()]
    search = EvolutionarySearch(task, tvm_target, cost_model, seed, known)
    return TaskRecord(task, search, workload, measured, trials=len(measured))


def _restore_kernel_task(
    task: Task,
    target: CompileTarget,
    cost_model: CostModel | None,
    seed: int,
    workload: int,
    records: Sequence[tuple[int, TuningRecord]],
) -> TaskRecord:
    """Restore the configs that the kernel still supports; the default's time among them."""
    configs = {
        line: (config, record.median)
        for line, record in records
        if (config := try_read_config(record.trace)) is not None and task.supports(config)
    }
    search = KnobSearch(task, target.tvm, cost_model, seed, list(configs.values()))
    measured = {
        line: Measured(seconds, make_candidate(task.module, task.knobs, config))
        for line, (config, seconds) in configs.items()
    }
    defaults = [seconds for config, seconds in configs.values() if config == task.default_config]
    return TaskRecord(
        task,
        search,
        workload,
        measured,
        trials=len(measured),
        default_seconds=defaults[0] if defaults else None,
    )


def _replay(
    task: Task, records: Sequence[tuple[int, TuningRecord]], note: Callable[[str], None]
) -> dict[int, Measured]:
    """Return the candidates that the log's traces make of an extracted task."""
    measured = {}
    for line, record in records:
        try:
            candidate = replay_trace(task.module, record.trace)
        except Exception:  # TVM's error for a trace that does not fit
            note(f"{task.name}: the log's line {line + 1} does not fit the function")
            continue
        measured[line] = Measured(record.median, candidate)
    return measured
