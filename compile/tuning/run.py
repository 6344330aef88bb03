"""One run of the tuner: defaults, search, and the last word."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median_high

import tvm
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.tuning.allotment import BATCH, Claim, next_claim
from mvlm.compile.tuning.building import Builder
from mvlm.compile.tuning.candidate import Candidate, candidate_of, replayed
from mvlm.compile.tuning.contest import ROUNDS, Verdict, judge
from mvlm.compile.tuning.devices import DevicePool, JobFailedError
from mvlm.compile.tuning.guide import Guide
from mvlm.compile.tuning.log import Measured, Outcome, Provenance, Run, WritableLog
from mvlm.compile.tuning.log.lines import try_choices
from mvlm.compile.tuning.plan import TuningPlan
from mvlm.compile.tuning.progress import Observer, Progress, TaskProgress
from mvlm.compile.tuning.search import FunctionSearch, PointSearch, Search
from mvlm.compile.tuning.stand import BenchStand
from mvlm.compile.tuning.task import Task
from mvlm.schedules import find_kernels

# The best of the search that meet the default again, if they looked so much faster.
_FINALISTS, _HOPE = 3, 0.997
_TICK_SECONDS = 0.2


@dataclass
class _State:
    """What is known of one task."""

    task: Task
    search: Search
    workload: int
    claim: Claim = field(default_factory=lambda: Claim(0.0))
    trials: int = 0
    default_library: Path | None = None
    plain_library: Path | None = None
    default_seconds: float | None = None
    best: float | None = None
    # Of what was measured, by its line in the log: the median, and the library if it is from now.
    found: dict[int, tuple[float, Candidate, Path | None]] = field(default_factory=dict)
    outcome: Outcome | None = None


@dataclass(frozen=True)
class _Batch:
    """Candidates that are being measured."""

    place: int
    candidates: tuple[Candidate, ...]
    libraries: tuple[Path | None, ...]
    times: tuple[Future[list[list[float]]] | None, ...]


class TuningRun:
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
        plan: TuningPlan,
        target: CompileTarget,
        tasks: Sequence[Task],
        builder: Builder,
        pool: DevicePool,
        stand: BenchStand,
        log: WritableLog,
        watcher: Observer,
    ) -> None:
        self._model, self._plan, self._target = model, plan, target
        self._builder, self._pool, self._stand = builder, pool, stand
        self._log, self._watcher = log, watcher
        self._begin = time.monotonic()
        self._search_begin: float | None = None
        threads = len(os.sched_getaffinity(0))
        self._guide = Guide(plan.seed, threads) if plan.has_cost_model else None
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

    def _open(self, task: Task, seed: int) -> _State:
        """Begin with what the log knows of a task."""
        workload = ms.database.Workload(task.module).as_json()
        line = self._log.add_workload(json.dumps(workload, separators=(",", ":")))
        known = [
            (place, record)
            for place, record in enumerate(self._log.tables.records)
            if record.workload == line
        ]
        target, drawn = self._target.tvm, self._plan.seed + seed
        if not task.operation:
            # MetaSchedule cuts loops for so many cores, and wants to be told.
            cores = {"num-cores": self._log.provenance.threads if self._log.provenance else 1}
            wide = tvm.target.Target({**self._target.options, **cores})
            found = self._replay(task, known)
            measured = [(candidate, median) for median, candidate, _ in found.values()]
            search = FunctionSearch(task, wide, self._guide, drawn, measured)
            return _State(task, search, line, Claim(0.0, trials=len(found)), found=found)
        points = [(try_choices(record.trace), place, record) for place, record in known]
        usable = [
            (point, place, record)
            for point, place, record in points
            if point is not None and task.has(point)
        ]
        times = [(point, record.median) for point, _, record in usable]
        state = _State(task, PointSearch(task, target, self._guide, drawn, times), line)
        for point, place, record in usable:
            candidate = candidate_of(task.module, task.knobs, point)
            state.found[place] = (record.median, candidate, None)
            if point == task.default and state.default_seconds is None:
                state.default_seconds = record.median
        state.claim.trials = len(usable)
        return state

    def _replay(
        self, task: Task, known: Sequence[tuple[int, Measured]]
    ) -> dict[int, tuple[float, Candidate, Path | None]]:
        """Return what the log's traces make of a function without a kernel."""
        found: dict[int, tuple[float, Candidate, Path | None]] = {}
        for place, record in known:
            try:
                found[place] = (record.median, replayed(task.module, record.trace), None)
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
                default = candidate_of(state.task.module, state.task.knobs, state.task.default)
                self._record(state, default, samples, state.default_library)
                state.search.learn([default], [state.default_seconds])
            self._begin_with(state)

    def _begin_with(self, state: _State) -> None:
        """Reckon what a task takes, by its default and what else is known."""
        assert state.default_seconds is not None
        known = [median for median, _, _ in state.found.values()]
        state.best = min([state.default_seconds, *known])
        state.claim.seconds = state.task.calls * state.best

    def _default_module(self, task: Task) -> object:
        if task.operation:
            return candidate_of(task.module, task.knobs, task.default).schedule.mod
        with self._target.tvm:
            scheduled = find_kernels(self._target.kernels).schedule(task.function)
        return type(task.module)({"main": scheduled})

    def _give_up(self, state: _State, why: str) -> None:
        self._watcher.note(f"{state.task.name} is left out: {why}")
        state.claim.is_over = True
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
        while (place := next_claim([state.claim for state in self._states], busy)) is not None:
            state = self._states[place]
            candidates = state.search.propose(min(BATCH, left))
            if candidates:
                break
            state.claim.is_over = True
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
                samples = beside(default, samples, state.default_seconds)
                medians[-1] = self._record(state, candidate, samples, library)
        state.search.learn(batch.candidates, medians)
        state.trials += len(batch.candidates)
        state.claim.trials += len(batch.candidates)
        known = [each for each in medians if each is not None]
        state.best = min([before, *known])
        state.claim.misses = 0 if state.best < before * _HOPE else state.claim.misses + 1
        state.claim.seconds = state.task.calls * state.best
        self._report("search", self.trials, self._plan.trials)

    def _record(
        self,
        state: _State,
        candidate: Candidate,
        samples: Sequence[float],
        library: Path | None,
    ) -> float:
        options = dict(self._target.options)
        payload = [candidate.trace_json, list(samples), options, None]
        measured = Measured(state.workload, payload)
        state.found[self._log.add_record(measured)] = (measured.median, candidate, library)
        return measured.median

    def _compare(self) -> None:
        """Let the best of each task meet its default again; keep it only if it wins."""
        hopeful = [state for state in self._states if state.default_seconds is not None]
        for done, state in enumerate(hopeful):
            self._report("compare", done, len(hopeful))
            try:
                self._decide(state)
            except JobFailedError as error:
                self._watcher.note(f"{state.task.name} stays as it is: {error}")
        self._report("compare", len(hopeful), len(hopeful))

    def _decide(self, state: _State) -> None:
        finalists = self._finalists(state)
        verdict, record, error = None, None, None
        if finalists:
            assert state.default_library is not None
            libraries = [library for _, library in finalists]
            first, *tried, again = self._stand.compare(
                state.task, [state.default_library, *libraries, state.default_library], ROUNDS
            )
            verdicts = [judge(first, times, again) for times in tried]
            order = sorted(range(len(verdicts)), key=lambda place: -verdicts[place].gain)
            verdict = verdicts[order[0]]
            for place in order:
                if not verdicts[place].wins:
                    break
                line, library = finalists[place]
                error = self._stand.error(state.task, library, state.plain_library)
                if error <= 1:
                    verdict, record = verdicts[place], line
                    break
                self._watcher.note(f"{state.task.name}: a faster schedule computes something else")
        self._conclude(state, verdict, record, error)

    def _finalists(self, state: _State) -> list[tuple[int, Path]]:
        """Return lines and libraries of what looked faster than the default, and of who won last.

        Whoever won before is judged again, whatever else there is: with more candidates there are
        more that look fast by luck.
        """
        assert state.default_seconds is not None
        limit = state.default_seconds * _HOPE
        ordered = sorted(state.found.items(), key=lambda item: item[1][0])
        hopeful = [
            (place, candidate, library)
            for place, (median, candidate, library) in ordered
            if median < limit and candidate.point != state.task.default
        ][:_FINALISTS]
        known = self._log.tables.outcomes.get(state.task.key)
        champion = known.record if known else None
        if champion in state.found and champion not in {place for place, *_ in hopeful}:
            assert champion is not None
            hopeful.append((champion, *state.found[champion][1:]))
        missing = [candidate.schedule.mod for _, candidate, library in hopeful if library is None]
        built = iter(self._builder.build(missing) if missing else [])
        found = []
        for place, _, library in hopeful:
            whole = library or next(built).path
            if whole is not None:
                found.append((place, whole))
        return found

    def _conclude(
        self, state: _State, verdict: Verdict | None, record: int | None, error: float | None
    ) -> None:
        assert state.default_seconds is not None
        known = self._log.tables.outcomes.get(state.task.key)
        state.outcome = Outcome(
            name=state.task.name,
            operation=state.task.operation,
            workload=state.workload,
            trials=(known.trials if known else 0) + state.trials,
            default_seconds=verdict.default_seconds if verdict else state.default_seconds,
            tuned_seconds=verdict.seconds if verdict else None,
            gain=verdict.gain if verdict else 0.0,
            noise=verdict.noise if verdict else 0.0,
            record=record,
            error=error if record is not None else None,
            date=_now(),
        )
        outcomes = {**self._log.tables.outcomes, state.task.key: state.outcome}
        assert self._log.provenance is not None
        self._log.write_provenance(dataclasses.replace(self._log.provenance, outcomes=outcomes))

    def _sign(self, is_complete: bool) -> None:
        """Write down that this run was."""
        assert self._log.provenance is not None
        run = Run(
            date=_now(),
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


def beside(default: Sequence[float], samples: Sequence[float], reference: float) -> list[float]:
    """Return a candidate's times as they were when the default took `reference` seconds.

    Devices differ, and each is now slower and now faster: it gets warm, others use it. What stays
    is how long a candidate takes beside the default, in turns with which it is measured.
    """
    return [reference * mine / its for its, mine in zip(default, samples, strict=True)]


def _progress(state: _State) -> TaskProgress:
    verdict = None
    if state.outcome is not None:
        verdict = state.outcome.gain if state.outcome.record is not None else 0.0
    return TaskProgress(
        name=state.task.name,
        calls=state.task.calls,
        trials=state.trials,
        default_seconds=state.default_seconds,
        best_seconds=state.best,
        verdict=verdict,
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
