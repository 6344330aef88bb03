"""Runs the steps of a plan: each once, by whichever run leases it first, with retries.

All state is in the store, where every machine can read it, and where a second run finds what the
first one finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mvlm.compile.jobs import states
from mvlm.compile.jobs.engines.engine import Engine
from mvlm.compile.jobs.errors import StoreError
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS, StepOutcome, StepRequest
from mvlm.compile.jobs.plan import MatrixPlan, Step
from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.states import MatrixRun, StepEntry, StepState
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.leases import Heartbeat, Leases
from mvlm.compile.jobs.store.results import ArtifactResult, WeightsResult, total_bytes
from mvlm.compile.jobs.store.runs import new_run_id

RETRIES = 2
_TICK_SECONDS = 0.5
# Between two looks at a step that another run has leased.
_POLL_SECONDS = 1.0
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0

# Called with a step and its new state.
Observer = Callable[[Step, StepState], None]


@dataclass(frozen=True)
class Options:
    """How a run is done.

    Attributes:
        retries: How often a step with a retryable error is started again.
        verify: Whether existing results are read and compared with their digests.
        first_delay: Seconds before the first retry; each further one waits twice as long.
    """

    retries: int = RETRIES
    verify: bool = False
    first_delay: float = _FIRST_DELAY_SECONDS


@dataclass
class _Task:
    """A step and its state so far."""

    step: Step
    memory: int
    state: StepState = field(default_factory=StepState)
    not_before: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.state.state not in states.FINISHED


class Coordinator:
    """One run of a plan.

    Args:
        plan: The steps.
        store: Where results go.
        engine: Where steps are done.
        options: How.
        observe: Called whenever a step's state changes.
        run_id: The run's name; a new one if None.
    """

    def __init__(
        self,
        plan: MatrixPlan,
        store: Store,
        engine: Engine,
        options: Options | None = None,
        observe: Observer = lambda step, state: None,
        run_id: str | None = None,
    ) -> None:
        self._store, self._engine, self._observe = store, engine, observe
        self._options = options or Options()
        self._tasks = {step.key: _Task(step, step.memory) for step in plan.steps}
        self._path, self._logs = str(plan.path), plan.logs
        self._last_cancel_check = 0.0
        self.run_id = run_id or new_run_id()
        self._leases: Leases = store.leases(self.run_id)

    def run(self) -> tuple[MatrixRun, dict[str, StepState]]:
        """Run all steps, and return the run and the states of its steps.

        Raises:
            StoreError: The run could not be entered into the store; nothing was begun.
            KeyboardInterrupt: Ctrl-C; everything is stopped, and the states say so.
        """
        try:
            self._store.gc()
            self._reuse(self._tasks.values())
            self._run = self._register()
            heartbeat = Heartbeat(self._leases, lambda: self._store.runs.renew(self.run_id))
            try:
                self._run_steps()
            except BaseException:
                self._cancel_open("interrupted")
                raise
            finally:
                heartbeat.stop()
        finally:
            self._engine.stop()
            self._leases.release_all()
        return self._close(), {key: task.state for key, task in self._tasks.items()}

    # --- the beginning and the end ----------------------------------------------------------------

    def _reuse(self, tasks: Iterable[_Task]) -> None:
        """Find existing results, and leave out weights that no open job needs."""
        ordered = sorted(tasks, key=lambda task: task.step.kind != ARTIFACT)
        for task in ordered:
            if found := self._find(task.step, verify=self._options.verify):
                task.state = _reused(found)
        needed = {task.step.weights for task in ordered if task.is_open}
        for task in ordered:
            if task.step.kind == WEIGHTS and task.step.key not in needed:
                del self._tasks[task.step.key]

    def _register(self) -> MatrixRun:
        """Write the run's document and its steps' states."""
        run = MatrixRun(
            id=self.run_id,
            matrix=self._path,
            engine=self._engine.description,
            owner=this_process(),
            started=time.time(),
            state=states.RUNNING,
            steps=tuple(_entry(task.step) for task in self._tasks.values()),
        )
        self._store.runs.write(run)
        self._store.runs.renew(run.id)
        for task in self._tasks.values():
            self._set(task, task.state)
        return run

    def _close(self) -> MatrixRun:
        found = {task.state.state for task in self._tasks.values()}
        ending = states.FAILED if states.FAILED in found else states.DONE
        return self._end(states.CANCELLED if states.CANCELLED in found else ending)

    def _end(self, state: str) -> MatrixRun:
        self._run = replace(self._run, state=state, ended=time.time())
        self._store.runs.write(self._run)
        return self._run

    def _cancel_open(self, why: str) -> None:
        """Kill running steps, and mark all open steps as cancelled."""
        self._engine.stop()
        for task in self._open():
            self._set(task, replace(task.state, state=states.CANCELLED, note=why))
        with suppress(StoreError):
            self._end(states.CANCELLED)

    # --- the middle -------------------------------------------------------------------------------

    def _run_steps(self) -> None:
        while self._open():
            if self._is_cancelled():
                self._cancel_open("cancelled by `mvlm jobs cancel`")
                return
            self._start_ready()
            for outcome in self._engine.wait(_TICK_SECONDS):
                self._handle_outcome(self._tasks[outcome.key], outcome)

    def _open(self) -> list[_Task]:
        return [task for task in self._tasks.values() if task.is_open]

    def _is_cancelled(self) -> bool:
        now = time.monotonic()
        if now - self._last_cancel_check < _POLL_SECONDS:
            return False
        self._last_cancel_check = now
        try:
            return self._store.runs.is_cancelled(self.run_id)
        except StoreError:
            return False

    def _start_ready(self) -> None:
        for task in self._open():
            waits = task.state.state != states.QUEUED or time.monotonic() < task.not_before
            if not waits and self._has_weights(task):
                try:
                    self._start(task)
                except StoreError as error:
                    self._retry_or_fail(
                        task, StepOutcome(task.step.key, str(error), error.retryable)
                    )

    def _has_weights(self, task: _Task) -> bool:
        """Whether a step's weights are in the store; if they failed, the step fails."""
        weights = self._tasks.get(task.step.weights)
        if weights is None or weights is task or weights.state.state in states.SUCCESSFUL:
            return True
        if weights.state.state == states.FAILED:
            note = f"its weights failed: {weights.state.note}"
            self._set(task, replace(task.state, state=states.FAILED, note=note))
        return False

    def _start(self, task: _Task) -> None:
        """Start a step, if there is room, no other run has leased it, and it has no result yet."""
        step = task.step
        if refusal := self._engine.refusal(task.memory):
            self._set(task, replace(task.state, state=states.FAILED, note=refusal))
        elif self._engine.has_room(task.memory) and not self._reuse_result(task):
            if not self._leases.acquire(step.key):
                self._wait_for_owner(task)
            # Between the look and the lease another run may have finished it.
            elif not self._reuse_result(task):
                for entry in step.job.logs:
                    self._store.blobs.put(self._logs / entry.path, entry)
                attempt = task.state.attempts + 1
                self._engine.start(self._request(step), attempt, task.memory)
                started = StepState(states.RUNNING, attempt, started=time.time())
                self._set(task, started)

    def _reuse_result(self, task: _Task) -> bool:
        found = self._find(task.step)
        if found is not None:
            self._leases.release(task.step.key)
            # A worker may have died after storing its result: such an attempt counts.
            self._set(task, replace(_reused(found), attempts=task.state.attempts))
        return found is not None

    def _wait_for_owner(self, task: _Task) -> None:
        task.not_before = time.monotonic() + _POLL_SECONDS
        note = f"waits for {self._leases.owner(task.step.key)}"
        if note != task.state.note:
            self._set(task, replace(task.state, note=note))

    def _handle_outcome(self, task: _Task, outcome: StepOutcome) -> None:
        if outcome.error:
            self._retry_or_fail(task, outcome)
            return
        self._leases.release(task.step.key)
        self._set(task, _after(task.state, outcome, states.DONE))

    def _retry_or_fail(self, task: _Task, outcome: StepOutcome) -> None:
        """Queue a step again if the error is retryable, else fail it."""
        with suppress(StoreError):  # a lease that is not renewed expires
            self._leases.release(task.step.key)
        attempts = max(task.state.attempts, 1)
        if not outcome.retryable or attempts > self._options.retries:
            self._set(task, _after(task.state, outcome, states.FAILED))
            return
        if outcome.out_of_memory:
            task.memory *= 2
        delay = min(self._options.first_delay * 2 ** (attempts - 1), _LONGEST_DELAY_SECONDS)
        task.not_before = time.monotonic() + delay
        again = _after(task.state, outcome, states.QUEUED)
        self._set(task, replace(again, attempts=attempts, note=f"tried again: {outcome.error}"))
        self._requeue_damaged_weights(task)

    def _requeue_damaged_weights(self, task: _Task) -> None:
        """Queue a failed step's weights as well, if they were damaged."""
        weights = self._tasks.get(task.step.weights)
        if weights is None or weights is task or weights.state.state not in states.SUCCESSFUL:
            return
        try:
            found = self._find(weights.step)
        except StoreError:
            return
        if found is None:
            note = "packed again: the store's were damaged"
            self._set(weights, replace(weights.state, state=states.QUEUED, note=note))

    def _find(self, step: Step, *, verify: bool = False) -> ArtifactResult | WeightsResult | None:
        return self._store.find_complete(step.kind, step.key, verify=verify)

    def _request(self, step: Step) -> StepRequest:
        return StepRequest(
            kind=step.kind,
            key=step.key,
            name=step.name,
            weights=step.weights,
            job=step.job,
            store=self._store.files.url,
            run=self.run_id,
        )

    def _set(self, task: _Task, state: StepState) -> None:
        task.state = state
        # The result counts; a failing store shows when the step itself writes to it.
        with suppress(StoreError):
            self._store.runs.write_state(self.run_id, task.step.key, state)
        self._observe(task.step, state)


def _entry(step: Step) -> StepEntry:
    return StepEntry(step.key, step.kind, step.name, step.labels)


def _reused(found: ArtifactResult | WeightsResult) -> StepState:
    return StepState(states.REUSED, result_bytes=total_bytes(found.files))


def _after(state: StepState, outcome: StepOutcome, ending: str) -> StepState:
    return replace(
        state,
        state=ending,
        worker=outcome.worker or state.worker,
        seconds=round(outcome.seconds, 3),
        peak_bytes=outcome.peak_bytes,
        result_bytes=outcome.result_bytes,
        note=outcome.error,
    )
