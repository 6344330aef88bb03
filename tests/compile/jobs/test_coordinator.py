"""Runs of faked steps: what is done once, what is tried again, and what is left after a fault."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mvlm.compile.jobs.coordinator import Coordinator, Options
from mvlm.compile.jobs.engines.local import LocalEngine
from mvlm.compile.jobs.errors import PermanentStoreError, StoreError
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS
from mvlm.compile.jobs.plan import MatrixPlan, Step
from mvlm.compile.jobs.report import describe_run, read_states, write_reports
from mvlm.compile.jobs.states import MatrixRun, StepState
from mvlm.compile.jobs.store import Store
from tests.compile.jobs.fakes import fake_plan, inject_fault, key_of, write_files

pytestmark = pytest.mark.usefixtures("faked")
QUICK = Options(first_delay=0.01)


class Seen:
    """Remembers what became of every step, by name."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []

    def __call__(self, step: Step, state: StepState) -> None:
        self.states.append((step.name, state.state))

    def begun(self) -> Counter[str]:
        return Counter(name for name, state in self.states if state == "running")


def coordinator(
    store: Store,
    plan: MatrixPlan,
    seen: Seen | None = None,
    options: Options = QUICK,
    workers: int = 2,
) -> Coordinator:
    engine = LocalEngine(store.files, workers, available=lambda: None)
    return Coordinator(plan, store, engine, options, seen or Seen())


def run(
    store: Store, plan: MatrixPlan, seen: Seen | None = None, options: Options = QUICK
) -> tuple[MatrixRun, dict[str, StepState]]:
    run, states = coordinator(store, plan, seen, options).run()
    names = {step.key: step.name for step in plan.steps}
    return run, {names[key]: state for key, state in states.items()}


def assert_clean(store: Store) -> None:
    """No leases, nothing half written; and every document's files are there and right."""
    assert store.files.names("leases") == []
    assert store.files.names("tmp") == []
    for kind, folder in ((ARTIFACT, "artifacts"), (WEIGHTS, "weights")):
        for name in store.files.names(folder):
            assert store.find_complete(kind, name.removesuffix(".json"), verify=True)


def test_tuning_logs_are_stored_with_jobs(store: Store, tmp_path: Path) -> None:
    (entry,) = write_files(tmp_path / "logs", ["0/host/provenance.json"], "a log")
    plan = fake_plan(1)
    weights, artifact = plan.steps
    spec = replace(artifact.job, logs=(entry,))
    carried = replace(plan, steps=(weights, replace(artifact, job=spec)), logs=tmp_path / "logs")
    _, states = run(store, carried)
    assert states["a0"].state == "done"
    store.fetch_files(spec.logs, tmp_path / "there", linked=False)
    assert (tmp_path / "there" / entry.path).read_bytes() == (
        tmp_path / "logs" / entry.path
    ).read_bytes()


def test_steps_run_once_and_are_reused_later(store: Store) -> None:
    seen = Seen()
    first, states = run(store, fake_plan(3), seen)
    assert first.state == "done" and first.ended is not None
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(
        ("w", "a0", "a1", "a2"), "done"
    )
    assert seen.begun() == Counter(["w", "a0", "a1", "a2"])
    assert seen.states.index(("w", "done")) < seen.states.index(("a0", "running"))
    assert_clean(store)
    again = Seen()
    second, states = run(store, fake_plan(3), again)
    assert second.state == "done" and not again.begun()
    # Weights that nobody needs are no part of the run.
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(
        ("a0", "a1", "a2"), "reused"
    )
    assert store.runs.find(None) == second
    assert read_states(store, first)[key_of("w")].state == "done"


def test_larger_matrix_reuses_results(store: Store) -> None:
    run(store, fake_plan(1))
    seen = Seen()
    _, states = run(store, fake_plan(2), seen)
    assert (states["w"].state, states["a0"].state) == ("reused", "reused")
    assert seen.begun() == Counter(["a1"])


@pytest.mark.parametrize("kind", ["die SIGKILL", "store", "half"])
def test_retryable_errors_are_retried(store: Store, faked: Path, kind: str) -> None:
    inject_fault(faked, "a0", kind, kind)
    ended, states = run(store, fake_plan(2))
    assert ended.state == "done"
    assert (states["a0"].state, states["a0"].attempts) == ("done", 3)
    assert states["a0"].note == ""
    log = store.runs.log(ended.id, key_of("a0"))
    assert log.count("fault:") == 3
    assert_clean(store)


def test_retries_are_limited(store: Store, faked: Path) -> None:
    inject_fault(faked, "a0", *["store"] * 9)
    ended, states = run(store, fake_plan(2), options=Options(retries=1, first_delay=0.01))
    assert ended.state == "failed"
    assert (states["a0"].state, states["a0"].attempts) == ("failed", 2)
    assert states["a0"].note == "the network is away"
    assert states["a1"].state == "done"
    assert_clean(store)


def test_permanent_failure_is_not_retried_and_blocks_no_other_job(
    store: Store, faked: Path
) -> None:
    inject_fault(faked, "a0", "final")
    ended, states = run(store, fake_plan(3))
    assert (ended.state, states["a0"].attempts) == ("failed", 1)
    assert states["a0"].note == "tensor x is missing"
    assert [states[name].state for name in ("a1", "a2")] == ["done", "done"]
    _, states = run(store, fake_plan(3))  # and a second run does that one alone
    assert [states[name].state for name in ("a0", "a1", "a2")] == ["done", "reused", "reused"]


def test_failed_weights_fail_their_jobs(store: Store, faked: Path) -> None:
    inject_fault(faked, "w", "final")
    _, states = run(store, fake_plan(2))
    for name in ("a0", "a1"):
        assert states[name].state == "failed" and states[name].attempts == 0
        assert states[name].note == "its weights failed: tensor x is missing"
    assert store.files.names("artifacts") == []


def test_damaged_weights_are_packed_again(store: Store, faked: Path) -> None:
    inject_fault(faked, "a0", "damaged")
    seen = Seen()
    ended, states = run(store, fake_plan(1), seen)
    assert ended.state == "done"
    assert seen.begun() == Counter({"w": 2, "a0": 2})
    assert states["a0"].attempts == 2
    assert_clean(store)


def test_missing_blob_is_made_again(store: Store) -> None:
    run(store, fake_plan(1))
    artifact = store.artifact(key_of("a0"))
    assert artifact is not None and store.files.folder is not None
    store.files.remove(f"blobs/sha256/{artifact.files[0].sha256}")
    seen = Seen()
    run(store, fake_plan(1), seen)
    assert seen.begun() == Counter(["a0"])
    assert_clean(store)


def test_step_larger_than_memory_is_refused(store: Store) -> None:
    """What does not fit alone is refused with the numbers; the others go on."""
    plan = fake_plan(2, memory=1_000_000_000)
    large = [step if step.name != "a0" else _larger(step) for step in plan.steps]
    engine = LocalEngine(store.files, 2, available=lambda: 2_000_000_000)
    _, states = Coordinator(replace(plan, steps=tuple(large)), store, engine, QUICK).run()
    refused = states[key_of("a0")]
    assert refused.state == "failed" and refused.attempts == 0
    assert "expected about 3.00 GB, found 2.00 GB" in refused.note
    assert states[key_of("a1")].state == "done"


def _larger(step: Step) -> Step:
    return replace(step, memory=3_000_000_000)


def test_out_of_memory_step_is_retried_with_more(store: Store, faked: Path) -> None:
    inject_fault(faked, "w", "die SIGKILL")
    engine = LocalEngine(store.files, 2, available=lambda: 2_500_000_000)
    _, states = Coordinator(fake_plan(1, memory=2_000_000_000), store, engine, QUICK).run()
    assert "expected about 4.00 GB" in states[key_of("w")].note


# --- two at once --------------------------------------------------------------------------------


def test_two_runs_share_the_work(store: Store, faked: Path) -> None:
    for name in ("w", "a0", "a1", "a2", "a3"):
        inject_fault(faked, name, "sleep 0.4")
    seen = [Seen(), Seen()]
    runs = [coordinator(store, fake_plan(4), each, workers=1) for each in seen]
    ended: list[tuple[MatrixRun, dict[str, StepState]]] = []
    # Workers end with the thread that started them, so each thread lives as long as its run.
    threads = [threading.Thread(target=lambda c=c: ended.append(c.run())) for c in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [run.state for run, _ in ended] == ["done", "done"]
    together = seen[0].begun() + seen[1].begun()
    assert together == Counter(["w", "a0", "a1", "a2", "a3"])
    assert all(each.begun() for each in seen)
    assert_clean(store)


def test_two_runs_finish_the_same_step_without_leases(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases save work and guard nothing: without any, results are whole all the same."""
    monkeypatch.setattr("mvlm.compile.jobs.store.leases.Leases.acquire", lambda *_: True)
    runs = [coordinator(store, fake_plan(2)) for _ in range(2)]
    threads = [threading.Thread(target=c.run) for c in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert store.files.names("artifacts") == sorted(f"{key_of(n)}.json" for n in ("a0", "a1"))
    assert_clean(store)


# --- cancelling and failing stores --------------------------------------------------------------


def test_cancel_while_running(store: Store, faked: Path) -> None:
    for name in ("a0", "a1"):
        inject_fault(faked, name, "sleep 3600")
    plan = fake_plan(3)
    asked = coordinator(store, plan)

    def cancel(step: Step, state: StepState) -> None:
        if (step.name, state.state) == ("a0", "running"):
            store.runs.cancel(store.runs.find(asked.run_id))

    asked._observe = cancel
    ended, states = asked.run()
    assert ended.state == "cancelled"
    assert states[key_of("w")].state == "done"
    for name in ("a0", "a1", "a2"):
        assert states[key_of(name)].state == "cancelled"
        assert store.runs.state(ended, key_of(name)).note == "cancelled by `mvlm jobs cancel`"
    assert_clean(store)
    for name in ("a0", "a1"):  # a worker may have been killed before it read its fault
        inject_fault(faked, name)
    ended, _ = run(store, plan)
    assert ended.state == "done"


def test_ctrl_c_cancels_a_run(store: Store, faked: Path) -> None:
    inject_fault(faked, "a0", "sleep 60")

    def press(step: Step, state: StepState) -> None:
        if (step.name, state.state) == ("a0", "running"):
            raise KeyboardInterrupt

    asked = coordinator(store, fake_plan(2))
    asked._observe = press
    with pytest.raises(KeyboardInterrupt):
        asked.run()
    ended = store.runs.find(None)
    assert ended.state == "cancelled"
    assert store.runs.state(ended, key_of("a1")).note == "interrupted"
    assert_clean(store)


@pytest.fixture
def failing(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """Raise these, one after the other, where a step looks for its result."""
    errors: list[Exception] = []
    found = Store.find_complete

    def find_complete(self: Store, kind: str, key: str, *, verify: bool = False) -> object:
        if kind == ARTIFACT and errors:
            raise errors.pop()
        return found(self, kind, key, verify=verify)

    monkeypatch.setattr(Store, "find_complete", find_complete)
    yield errors


def run_failing_later(
    store: Store, failing: list[Exception], error: Exception
) -> tuple[MatrixRun, dict[str, StepState]]:
    """Let the store fail once, when the weights are done."""

    def observe(step: Step, state: StepState) -> None:
        if (step.name, state.state) == ("w", "done"):
            failing.append(error)

    engine = LocalEngine(store.files, 2, available=lambda: None)
    return Coordinator(fake_plan(1), store, engine, QUICK, observe).run()


def test_unreachable_store_is_retried(store: Store, failing: list[Exception]) -> None:
    _, states = run_failing_later(store, failing, StoreError("away"))
    assert states[key_of("a0")].state == "done"


def test_full_store_fails_the_step(store: Store, failing: list[Exception]) -> None:
    asked = coordinator(store, fake_plan(1))
    asked._observe = lambda step, state: (
        failing.append(PermanentStoreError("full"))
        if (step.name, state.state) == ("w", "done")
        else None
    )
    _, states = asked.run()
    assert (states[key_of("a0")].state, states[key_of("a0")].note) == ("failed", "full")


# --- reports ------------------------------------------------------------------------------------


def test_run_reports_json_and_html(store: Store, faked: Path) -> None:
    inject_fault(faked, "a0", "final")
    plan = fake_plan(2)
    ended, states = coordinator(store, plan).run()
    report = describe_run(store, ended, states)
    assert report["counts"]["failed"] == 1 and report["counts"]["done"] == 1
    urls = write_reports(store, ended, states, report)
    page = Path(urls["html"].removeprefix("file://")).read_text()
    assert "fault: final" in page and "tensor x is missing" in page
    assert store.runs.find(None).state == "failed"
