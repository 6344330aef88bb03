"""The tuning loop: measures the defaults, gives trials to tasks, and validates their best.

`TaskScheduler` owns the loop, and no other code changes a `TaskRecord`. In each round the task with
the highest priority gets a batch of trials: its search strategy proposes candidates, the builder
builds them, the runner measures them, the database records the times, and the strategy and the
cost model learn from them.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

import tvm

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.tuning.builder import Builder
from mvlm.compile.tuning.cost_model import CostModel
from mvlm.compile.tuning.devices import JobFailedError
from mvlm.compile.tuning.measure_candidate import MeasureCandidate, make_candidate
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.progress import Observer, Progress, TaskProgress
from mvlm.compile.tuning.runner import SEARCH_REPEAT, Runner
from mvlm.compile.tuning.task import Task
from mvlm.compile.tuning.task_record import Measured, TaskRecord, restore_record
from mvlm.compile.tuning.validate import PROMISING_RATIO, Validator
from mvlm.compile.tuning_log import TuningDatabase, TuningRecord, TuningRun, utc_now
from mvlm.schedules.registry import find_kernels

TRIALS_PER_ITER = 16
# A task's priority is multiplied by this for each round without an improvement.
_STALE_DISCOUNT = 0.75
# Added to a task's trials, so that its first round is worth more than the later ones, but not all.
_TRIALS_OFFSET = 16
# A task with a smaller share of a chat turn's time is not searched.
_MIN_SHARE = 0.001
_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class _Batch:
    """Candidates of one task that are being measured.

    Attributes:
        task_id: The task's index.
        candidates: The candidates.
        libraries: Their libraries; None where the build failed.
        times: The interleaved default's times and the candidate's; None where the build failed.
    """

    task_id: int
    candidates: Sequence[MeasureCandidate]
    libraries: Sequence[Path | None]
    times: Sequence[Future[list[list[float]]] | None]


class TaskScheduler:
    """One run of the tuner.

    Args:
        model: The model's name.
        options: The run's options.
        target: The compilation's target.
        tasks: The tasks to tune.
        builder: Builds candidates.
        runner: Measures them.
        database: Gets every measurement and result.
        observer: Watches the run.
    """

    def __init__(
        self,
        model: str,
        options: TuningOptions,
        target: CompileTarget,
        tasks: Sequence[Task],
        builder: Builder,
        runner: Runner,
        database: TuningDatabase,
        observer: Observer,
    ) -> None:
        self._model, self._options, self._target = model, options, target
        self._builder, self._runner = builder, runner
        self._database, self._observer = database, observer
        self._begin = time.monotonic()
        self._search_begin: float | None = None
        threads = len(os.sched_getaffinity(0))
        cost_model = CostModel(options.seed, threads) if options.has_cost_model else None
        self._records = [
            restore_record(task, target, cost_model, options.seed + number, database, observer.note)
            for number, task in enumerate(tasks)
        ]
        self.trials = 0

    def run(self) -> None:
        """Tune all tasks; the log gets an entry of the run however it ends."""
        is_complete = False
        try:
            self._measure_defaults()
            self._search()
            self._validate()
            is_complete = True
        finally:
            self._commit_run(is_complete)

    def _measure_defaults(self) -> None:
        """Measure each task's default, unless the log has it: the times give the priorities."""
        libraries = self._builder.build([self._default_module(r.task) for r in self._records])
        extracted = [record for record in self._records if not record.task.operation]
        unscheduled = self._builder.build(
            [record.task.module for record in extracted], as_defined=True
        )
        for record, built in zip(extracted, unscheduled, strict=True):
            record.unscheduled_library = built.path
        self._runner.prepare(record.task for record in self._records)
        pending = []
        for record, built in zip(self._records, libraries, strict=True):
            record.default_library = built.path
            if built.path is None:
                self._terminate(record, f"its default cannot be built: {built.error}")
            elif record.default_seconds is None:
                times = self._runner.measure(record.task, [built.path], SEARCH_REPEAT)
                pending.append((record, times))
        for done, (record, times) in enumerate(pending):
            self._report("defaults", done, len(pending))
            try:
                (samples,) = self._wait(times, "defaults", done, len(pending))
            except JobFailedError as error:
                self._terminate(record, f"its default cannot be run: {error}")
                continue
            record.default_seconds = median_high(samples)
            if record.task.operation:
                default = self._default_candidate(record.task)
                self._commit(record, default, samples, record.default_library)
                record.search.notify_runner_results([default], [record.default_seconds])
        for record in self._records:
            if record.default_seconds is not None:
                known = [each.seconds for each in record.measured.values()]
                record.best_seconds = min([record.default_seconds, *known])

    def _default_candidate(self, task: Task) -> MeasureCandidate:
        return make_candidate(task.module, task.knobs, task.default_config)

    def _default_module(self, task: Task) -> tvm.IRModule:
        if task.operation:
            return self._default_candidate(task).schedule.mod
        with self._target.tvm:
            return tvm.IRModule(
                {"main": find_kernels(self._target.kernels).schedule(task.function)}
            )

    def _terminate(self, record: TaskRecord, why: str) -> None:
        self._observer.note(f"{record.task.name} is not tuned: {why}")
        record.is_terminated = True
        record.default_seconds = None  # the log may have it, but nothing is compared with it

    def _search(self) -> None:
        """Measure batches, one for each device at a time, until no trial is left or worth it."""
        self._search_begin = time.monotonic()
        batches: deque[_Batch] = deque()
        while True:
            while len(batches) < max(1, len(self._runner.devices)):
                batch = self._send_batch({batch.task_id for batch in batches})
                if batch is None:
                    break
                batches.append(batch)
            if not batches:
                return
            self._receive_batch(batches.popleft())

    @staticmethod
    def next_task_id(records: Sequence[TaskRecord], busy: Collection[int] = ()) -> int | None:
        """Return the index of the task with the highest priority, or None if all are 0.

        Args:
            records: All tasks.
            busy: Indices of tasks whose last batch is still being measured.
        """
        total = sum(record.weighted_seconds for record in records)
        priorities = [
            0.0 if task_id in busy else _priority(record, total)
            for task_id, record in enumerate(records)
        ]
        best = max(range(len(records)), key=priorities.__getitem__, default=None)
        return best if best is not None and priorities[best] > 0 else None

    def _send_batch(self, busy: Collection[int]) -> _Batch | None:
        """Build a batch of the next task's candidates, and queue their measurements."""
        left = self._options.trials - self.trials
        if left <= 0:
            return None
        while (task_id := self.next_task_id(self._records, busy)) is not None:
            record = self._records[task_id]
            candidates = record.search.generate_measure_candidates(min(TRIALS_PER_ITER, left))
            if candidates:
                break
            record.is_terminated = True
        else:
            return None
        self.trials += len(candidates)
        self._report("search", self.trials - len(candidates), self._options.trials)
        built = self._builder.build([candidate.schedule.mod for candidate in candidates])
        libraries = [each.path for each in built]
        default = record.default_library
        assert default is not None
        times = [
            None
            if library is None
            else self._runner.measure(record.task, [default, library], SEARCH_REPEAT)
            for library in libraries
        ]
        return _Batch(task_id, candidates, libraries, times)

    def _receive_batch(self, batch: _Batch) -> None:
        """Wait for a batch's times, record them, and update the task and its search."""
        record = self._records[batch.task_id]
        seconds: list[float | None] = []
        for candidate, library, times in zip(
            batch.candidates, batch.libraries, batch.times, strict=True
        ):
            seconds.append(None)
            if times is None:
                continue
            try:
                default, samples = self._wait(times, "search", self.trials, self._options.trials)
            except JobFailedError:
                continue
            assert record.default_seconds is not None
            samples = relative_to_default(default, samples, record.default_seconds)
            seconds[-1] = self._commit(record, candidate, samples, library)
        record.search.notify_runner_results(batch.candidates, seconds)
        record.trials += len(batch.candidates)
        record.new_trials += len(batch.candidates)
        before = record.best_seconds
        assert before is not None
        record.best_seconds = min([before, *(each for each in seconds if each is not None)])
        is_better = record.best_seconds < before * PROMISING_RATIO
        record.stale_rounds = 0 if is_better else record.stale_rounds + 1
        self._report("search", self.trials, self._options.trials)

    def _commit(
        self,
        record: TaskRecord,
        candidate: MeasureCandidate,
        samples: Sequence[float],
        library: Path | None,
    ) -> float:
        """Write a measurement to the log; return its median."""
        payload = [candidate.trace_json, list(samples), dict(self._target.options), None]
        measurement = TuningRecord(record.workload, payload)
        line = self._database.commit_tuning_record(measurement)
        record.measured[line] = Measured(measurement.median, candidate, library)
        return measurement.median

    def _validate(self) -> None:
        """Keep each task's best candidate if it is significantly faster, and correct."""
        validator = Validator(self._builder, self._runner, self._observer.note)
        measured = [record for record in self._records if record.default_seconds is not None]
        for done, record in enumerate(measured):
            self._report("validate", done, len(measured))
            key = record.task.key
            try:
                record.result = validator.validate(record, self._database.contents.results.get(key))
            except JobFailedError as error:
                self._observer.note(f"{record.task.name} keeps its result: {error}")
                continue
            self._database.commit_result(key, record.result)
        self._report("validate", len(measured), len(measured))

    def _commit_run(self, is_complete: bool) -> None:
        """Write the run's entry to the log."""
        self._database.commit_run(
            TuningRun(
                date=utc_now(),
                model=self._model,
                trials=self.trials,
                seed=self._options.seed,
                cost_model="xgboost" if self._options.has_cost_model else "none",
                seconds=round(time.monotonic() - self._begin, 1),
                devices=self._runner.devices,
                retired=self._runner.retired,
                is_complete=is_complete,
            )
        )

    def _wait(
        self, times: Future[list[list[float]]], step: str, done: int, total: int
    ) -> list[list[float]]:
        """Wait for times, reporting progress meanwhile."""
        while True:
            try:
                return times.result(_TICK_SECONDS)
            except NotYetError:
                self._report(step, done, total)

    def _report(self, step: str, done: int, total: int) -> None:
        left = None
        if step == "search" and self._search_begin is not None and done:
            spent = time.monotonic() - self._search_begin
            left = spent / done * (total - done)
        self._observer.progress(
            Progress(
                step=step,
                done=done,
                total=total,
                tasks=tuple(map(_task_progress, self._records)),
                devices=len(self._runner.devices),
                seconds_left=left,
            )
        )


def _priority(record: TaskRecord, total_seconds: float) -> float:
    """Return the value of a task's next round, given all tasks' time in a chat turn."""
    if record.is_terminated or record.weighted_seconds < _MIN_SHARE * total_seconds:
        return 0.0
    share = record.weighted_seconds / total_seconds
    return share * _STALE_DISCOUNT**record.stale_rounds / (_TRIALS_OFFSET + record.trials)


def relative_to_default(
    default: Sequence[float], samples: Sequence[float], reference: float
) -> list[float]:
    """Return a candidate's times scaled to a default of `reference` seconds.

    We record the ratio to the interleaved default, scaled by the default's first measurement; this
    cancels the drift of a device and the difference between devices.

    Args:
        default: The interleaved default's times.
        samples: The candidate's times.
        reference: The default's first measurement.
    """
    return [reference * mine / its for its, mine in zip(default, samples, strict=True)]


def _task_progress(record: TaskRecord) -> TaskProgress:
    gain = None
    if record.result is not None:
        gain = record.result.gain if record.result.record is not None else 0.0
    return TaskProgress(
        name=record.task.name,
        weight=record.task.weight,
        trials=record.new_trials,
        default_seconds=record.default_seconds,
        best_seconds=record.best_seconds,
        gain=gain,
    )
