"""One run of the tuner: defaults, search, and the last word."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

import tvm
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.tuning.allotment import TRIALS_PER_ITER, Claim, next_task_id
from mvlm.compile.tuning.builder import Builder
from mvlm.compile.tuning.cost_model import CostModel
from mvlm.compile.tuning.devices import DevicePool, JobFailedError
from mvlm.compile.tuning.log import Provenance, TuningDatabase, TuningRecord, TuningRun
from mvlm.compile.tuning.log.lines import try_read_config
from mvlm.compile.tuning.measure_candidate import MeasureCandidate, make_candidate, replay_trace
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.progress import Observer, Progress, TaskProgress
from mvlm.compile.tuning.runner import Runner
from mvlm.compile.tuning.search_strategy import EvolutionarySearch, KnobSearch
from mvlm.compile.tuning.task import Task
from mvlm.compile.tuning.task_record import TaskRecord
from mvlm.compile.tuning.validate import PROMISING_RATIO, Validator, now
from mvlm.schedules import find_kernels

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class _Batch:
    """Candidates that are being measured."""

    place: int
    candidates: tuple[MeasureCandidate, ...]
    libraries: tuple[Path | None, ...]
    times: tuple[Future[list[list[float]]] | None, ...]


class TaskScheduler:
    """One run.

    Args:
        model: Its name.
        plan: What to do.
        target: What is compiled for.
        tasks: What there is to tune.
        builder: Builds candidates.
        pool: The devices.
        stand: Measures on them.
        log: Where everything goes.
        watcher: Is told.
    """

    def __init__(
        self,
        model: str,
        plan: TuningOptions,
        target: CompileTarget,
        tasks: Sequence[Task],
        builder: Builder,
        pool: DevicePool,
        stand: Runner,
        log: TuningDatabase,
        watcher: Observer,
    ) -> None:
        self._model, self._plan, self._target = model, plan, target
        self._builder, self._pool, self._stand = builder, pool, stand
        self._log, self._watcher = log, watcher
        self._begin = time.monotonic()
        self._search_begin: float | None = None
        threads = len(os.sched_getaffinity(0))
        self._cost_model = CostModel(plan.seed, threads) if plan.has_cost_model else None
        self._states = [self._open(task, seed) for seed, task in enumerate(tasks)]
        self.trials = 0

    def run(self) -> None:
        """Do all of it; whatever ends it, the log says that it was."""
        is_complete = False
        try:
            self._measure_defaults()
            self._search()
            self._compare()
            is_complete = True
        finally:
            self._sign(is_complete)

    def _open(self, task: Task, seed: int) -> TaskRecord:
        """Begin with what the log knows of a task."""
        workload = ms.database.Workload(task.module).as_json()
        line = self._log.commit_workload(json.dumps(workload, separators=(",", ":")))
        known = [
            (place, record)
            for place, record in enumerate(self._log.contents.records)
            if record.workload == line
        ]
        target, drawn = self._target.tvm, self._plan.seed + seed
        if not task.operation:
            # MetaSchedule cuts loops for so many cores, and wants to be told.
            cores = {"num-cores": self._log.provenance.threads if self._log.provenance else 1}
            wide = tvm.target.Target({**self._target.options, **cores})
            found = self._replay(task, known)
            measured = [(candidate, median) for median, candidate, _ in found.values()]
            search = EvolutionarySearch(task, wide, self._cost_model, drawn, measured)
            return TaskRecord(task, search, line, Claim(0.0, trials=len(found)), found=found)
        configs = [(try_read_config(record.trace), place, record) for place, record in known]
        usable = [
            (config, place, record)
            for config, place, record in configs
            if config is not None and task.supports(config)
        ]
        times = [(config, record.median) for config, _, record in usable]
        state = TaskRecord(task, KnobSearch(task, target, self._cost_model, drawn, times), line)
        for config, place, record in usable:
            candidate = make_candidate(task.module, task.knobs, config)
            state.found[place] = (record.median, candidate, None)
            if config == task.default_config and state.default_seconds is None:
                state.default_seconds = record.median
        state.claim.trials = len(usable)
        return state

    def _replay(
        self, task: Task, known: Sequence[tuple[int, TuningRecord]]
    ) -> dict[int, tuple[float, MeasureCandidate, Path | None]]:
        """Return what the log's traces make of a function without a kernel."""
        found: dict[int, tuple[float, MeasureCandidate, Path | None]] = {}
        for place, record in known:
            try:
                found[place] = (record.median, replay_trace(task.module, record.trace), None)
            except Exception:  # whatever TVM makes of a trace that does not fit
                self._watcher.note(f"{task.name}: line {place + 1} of the log makes nothing of it")
        return found

    def _measure_defaults(self) -> None:
        """Measure what there is without tuning: it says where the time goes."""
        libraries = self._builder.build([self._default_module(s.task) for s in self._states])
        functions = [state for state in self._states if not state.task.operation]
        plain = self._builder.build([state.task.module for state in functions], as_defined=True)
        for state, built in zip(functions, plain, strict=True):
            state.plain_library = built.path
        self._stand.prepare(state.task for state in self._states)
        pending = []
        for state, built in zip(self._states, libraries, strict=True):
            state.default_library = built.path
            if built.path is None:
                self._give_up(state, f"its default cannot be built: {built.error}")
                continue
            if state.default_seconds is not None:
                self._begin_with(state)
                continue
            pending.append((state, self._stand.measure(state.task, [built.path])))
        for done, (state, times) in enumerate(pending):
            self._report("defaults", done, len(pending))
            try:
                (samples,) = self._wait(times, "defaults", done, len(pending))
            except JobFailedError as error:
                self._give_up(state, f"its default cannot be run: {error}")
                continue
            state.default_seconds = median_high(samples)
            if state.task.operation:
                default = make_candidate(
                    state.task.module, state.task.knobs, state.task.default_config
                )
                self._record(state, default, samples, state.default_library)
                state.search.notify_runner_results([default], [state.default_seconds])
            self._begin_with(state)

    def _begin_with(self, state: TaskRecord) -> None:
        """Reckon what a task takes, by its default and what else is known."""
        assert state.default_seconds is not None
        known = [median for median, _, _ in state.found.values()]
        state.best = min([state.default_seconds, *known])
        state.claim.seconds = state.task.weight * state.best

    def _default_module(self, task: Task) -> object:
        if task.operation:
            return make_candidate(task.module, task.knobs, task.default_config).schedule.mod
        with self._target.tvm:
            scheduled = find_kernels(self._target.kernels).schedule(task.function)
        return type(task.module)({"main": scheduled})

    def _give_up(self, state: TaskRecord, why: str) -> None:
        self._watcher.note(f"{state.task.name} is left out: {why}")
        state.claim.is_terminated = True
        state.default_seconds = None  # which a log may know: nothing is compared with it

    def _search(self) -> None:
        """Measure candidates until the trials are used up, or nothing is worth another one."""
        self._search_begin = time.monotonic()
        batches: list[_Batch] = []
        while True:
            while len(batches) < max(1, len(self._pool.devices)):
                batch = self._next_batch([batch.place for batch in batches])
                if batch is None:
                    break
                batches.append(batch)
            if not batches:
                return
            self._learn(batches.pop(0))

    def _next_batch(self, busy: Sequence[int]) -> _Batch | None:
        """Build the candidates that are worth most, and have them measured."""
        left = self._plan.trials - self.trials
        if left <= 0:
            return None
        while (place := next_task_id([state.claim for state in self._states], busy)) is not None:
            state = self._states[place]
            candidates = state.search.generate_measure_candidates(min(TRIALS_PER_ITER, left))
            if candidates:
                break
            state.claim.is_terminated = True
        else:
            return None
        self.trials += len(candidates)
        self._report("search", self.trials - len(candidates), self._plan.trials)
        built = self._builder.build([candidate.schedule.mod for candidate in candidates])
        assert state.default_library is not None
        times = [
            None
            if each.path is None
            else self._stand.measure(state.task, [state.default_library, each.path])
            for each in built
        ]
        libraries = tuple(each.path for each in built)
        return _Batch(place, tuple(candidates), libraries, tuple(times))

    def _learn(self, batch: _Batch) -> None:
        """Wait for a batch, and write down what it tells."""
        state = self._states[batch.place]
        medians: list[float | None] = []
        before = state.best or 0.0
        for candidate, library, times in zip(
            batch.candidates, batch.libraries, batch.times, strict=True
        ):
            medians.append(None)
            if times is not None:
                try:
                    default, samples = self._wait(times, "search", self.trials, self._plan.trials)
                except JobFailedError:
                    continue
                assert state.default_seconds is not None
                samples = relative_to_default(default, samples, state.default_seconds)
                medians[-1] = self._record(state, candidate, samples, library)
        state.search.notify_runner_results(batch.candidates, medians)
        state.trials += len(batch.candidates)
        state.claim.trials += len(batch.candidates)
        known = [each for each in medians if each is not None]
        state.best = min([before, *known])
        state.claim.stale_rounds = (
            0 if state.best < before * PROMISING_RATIO else state.claim.stale_rounds + 1
        )
        state.claim.seconds = state.task.weight * state.best
        self._report("search", self.trials, self._plan.trials)

    def _record(
        self,
        state: TaskRecord,
        candidate: MeasureCandidate,
        samples: Sequence[float],
        library: Path | None,
    ) -> float:
        options = dict(self._target.options)
        payload = [candidate.trace_json, list(samples), options, None]
        measured = TuningRecord(state.workload, payload)
        state.found[self._log.commit_tuning_record(measured)] = (
            measured.median,
            candidate,
            library,
        )
        return measured.median

    def _compare(self) -> None:
        """Let the best of each task meet its default again; keep it only if it wins."""
        validator = Validator(self._builder, self._stand, self._log, self._watcher.note)
        hopeful = [state for state in self._states if state.default_seconds is not None]
        for done, state in enumerate(hopeful):
            self._report("compare", done, len(hopeful))
            try:
                validator.decide(state)
            except JobFailedError as error:
                self._watcher.note(f"{state.task.name} stays as it is: {error}")
        self._report("compare", len(hopeful), len(hopeful))

    def _sign(self, is_complete: bool) -> None:
        """Write down that this run was."""
        assert self._log.provenance is not None
        run = TuningRun(
            date=now(),
            model=self._model,
            trials=self.trials,
            seed=self._plan.seed,
            cost_model="xgboost" if self._plan.has_cost_model else "none",
            seconds=round(time.monotonic() - self._begin, 1),
            devices=self._pool.devices,
            retired=self._pool.retired,
            is_complete=is_complete,
        )
        provenance: Provenance = self._log.provenance
        self._log.write_provenance(dataclasses.replace(provenance, runs=(*provenance.runs, run)))

    def _wait(
        self, times: Future[list[list[float]]], step: str, done: int, total: int
    ) -> list[list[float]]:
        """Wait for times, and go on reporting meanwhile."""
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
        self._watcher.progress(
            Progress(
                step=step,
                done=done,
                total=total,
                tasks=tuple(_progress(state) for state in self._states),
                devices=len(self._pool.devices),
                seconds_left=left,
            )
        )


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


def _progress(state: TaskRecord) -> TaskProgress:
    verdict = None
    if state.result is not None:
        verdict = state.result.gain if state.result.record is not None else 0.0
    return TaskProgress(
        name=state.task.name,
        calls=state.task.weight,
        trials=state.trials,
        default_seconds=state.default_seconds,
        best_seconds=state.best,
        verdict=verdict,
    )
