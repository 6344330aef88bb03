"""Workers as processes: how they end, what they leave, and that no more run than fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvlm.compile.jobs.engines.engine import open_engine
from mvlm.compile.jobs.engines.local import LocalEngine
from mvlm.compile.jobs.errors import PermanentStoreError
from mvlm.compile.jobs.messages import WEIGHTS, StepRequest
from mvlm.compile.jobs.store import Store, open_store
from mvlm.compile.jobs.store.runs import new_run_id
from mvlm.compile.jobs.worker_process import WorkerProcess
from mvlm.runtime.errors import UsageError
from tests.compile.jobs.fakes import MODULE, fake_step, inject_fault

pytestmark = pytest.mark.usefixtures("faked")
RUN = new_run_id()


@pytest.fixture
def engine(store: Store) -> Iterator[LocalEngine]:
    engine = LocalEngine(store.files, workers=2, available=lambda: None)
    yield engine
    engine.stop()


def request(store: Store, name: str = "w") -> StepRequest:
    step = fake_step(WEIGHTS, name)
    return StepRequest(step.kind, step.key, name, step.weights, step.job, store.files.url, RUN)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_dead(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_successful_step_outcome(store: Store, engine: LocalEngine) -> None:
    asked = request(store)
    engine.start(asked, 1, 0)
    (outcome,) = engine.wait(60)
    assert (outcome.key, outcome.error) == (asked.key, "")
    assert outcome.seconds > 0 and outcome.peak_bytes and outcome.peak_bytes > 1 << 20
    found = store.find_complete(WEIGHTS, asked.key, verify=True)
    assert found is not None and outcome.result_bytes == sum(e.size for e in found.files)
    assert "fault: none" in store.runs.log(RUN, asked.key)
    assert store.files.names("tmp") == []
    assert engine.wait(0) == []


@pytest.mark.parametrize(
    ("kind", "error", "retryable", "out_of_memory"),
    [
        ("final", "tensor x is missing", False, False),
        ("bug", "internal error: KeyError: 'lost'", False, False),
        ("store", "the network is away", True, False),
        ("memory", "not enough memory", True, True),
        ("die SIGKILL", r"ended before it was done: SIGKILL, as the system does", True, True),
        ("die SIGSEGV", "ended before it was done: SIGSEGV", True, False),
        ("exit 3", "ended before it was done: exit code 3", True, False),
        ("half", "SIGKILL", True, True),
    ],
)
def test_failed_step_outcomes(
    store: Store,
    engine: LocalEngine,
    faked: Path,
    kind: str,
    error: str,
    retryable: bool,
    out_of_memory: bool,
) -> None:
    inject_fault(faked, "w", kind)
    asked = request(store)
    engine.start(asked, 1, 0)
    (outcome,) = engine.wait(60)
    assert error in outcome.error
    assert (outcome.retryable, outcome.out_of_memory) == (retryable, out_of_memory)
    assert store.find_complete(WEIGHTS, asked.key) is None
    assert store.files.names("tmp") == []
    # A traceback is for bugs; what a user can act on is a line.
    assert ("Traceback" in store.runs.log(RUN, asked.key)) is (kind in ("bug", "memory"))


def test_stop_kills_workers(store: Store, engine: LocalEngine, faked: Path) -> None:
    inject_fault(faked, "w", "sleep 60")
    engine.start(request(store), 1, 0)
    (running,) = engine._running.values()
    assert alive(running.process.pid)
    engine.stop()
    assert not alive(running.process.pid)
    assert store.files.names("tmp") == []


def test_workers_end_with_their_parent(store: Store, faked: Path) -> None:
    """However that ends."""
    inject_fault(faked, "w", "sleep 60")
    program = (
        "import os, sys, time; from mvlm.compile.jobs import worker_process;"
        f"worker_process._MODULE = {MODULE!r};"
        "from mvlm.compile.jobs.messages import parse_step_request;"
        "from mvlm.compile.jobs.store import open_store;"
        "asked = parse_step_request(sys.argv[1]);"
        "child = worker_process.WorkerProcess(asked, open_store(asked.store).files, 1);"
        "print(child.pid, flush=True);"
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, request(store).to_json()], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    # It has asked to be told of its parent's end when it prints.
    log = Path(store.files.folder or "") / f"runs/{RUN}/logs/{request(store).key}.1.log"
    deadline = time.monotonic() + 30
    while "fault" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until_dead(worker)
    assert len(store.files.names("tmp")) == 1
    store.gc()
    assert store.files.names("tmp") == []


def test_missing_scratch_folder_is_a_store_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full before the worker has begun."""
    (store.files.folder or Path()).mkdir()
    monkeypatch.setattr(
        "tempfile.mkdtemp", lambda **_: (_ for _ in ()).throw(OSError(28, "No space"))
    )
    with pytest.raises(PermanentStoreError, match="no space left on the disk"):
        WorkerProcess(request(store), store.files, 1)


# --- memory -------------------------------------------------------------------------------------


def test_local_engine_respects_memory(store: Store, faked: Path) -> None:
    """What is reserved counts, not what is taken so far."""
    engine = LocalEngine(store.files, workers=9, available=lambda: 10_000_000_000)
    for name in ("a", "b", "c"):
        inject_fault(faked, name, "sleep 60")
    try:
        for name, fits in (("a", True), ("b", True), ("c", False)):
            assert engine.has_room(4_000_000_000) is fits
            if fits:
                engine.start(request(store, name), 1, 4_000_000_000)
        assert engine.has_room(1_000_000_000)
    finally:
        engine.stop()
    assert engine.has_room(4_000_000_000)


def test_resident_memory_of_running_steps_counts_once(
    store: Store, faked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory goes down as they take what was set aside for them, and that counts once."""
    free = 10_000_000_000
    engine = LocalEngine(store.files, workers=9, available=lambda: free)
    inject_fault(faked, "a", "sleep 60")
    engine.start(request(store, "a"), 1, 6_000_000_000)
    monkeypatch.setattr(WorkerProcess, "resident_bytes", 6_000_000_000)
    free -= 6_000_000_000
    try:
        assert engine.has_room(4_000_000_000)
        assert not engine.has_room(4_000_000_001)
    finally:
        monkeypatch.undo()
        engine.stop()


def test_memory_limit(store: Store) -> None:
    engine = LocalEngine(store.files, 2, limit=2_000_000_000, available=lambda: 9_000_000_000)
    assert not engine.refusal(2_000_000_000)
    assert "expected about 3.00 GB, found 2.00 GB" in engine.refusal(3_000_000_000)
    unknown = LocalEngine(store.files, 2, available=lambda: None)
    assert unknown.has_room(1 << 60) and not unknown.refusal(1 << 60)


# --- names --------------------------------------------------------------------------------------


def test_engines_by_name(store: Store) -> None:
    assert open_engine("local", store, 3, None).description == "local, 3 workers"
    for name in ("rey", "ray=", "local=x", ""):
        with pytest.raises(UsageError, match=r"--engine: expected local, ray or ray=ADDRESS"):
            open_engine(name, store, None, None)
    with pytest.raises(UsageError, match="the store cannot be shared"):
        open_engine("local", open_store("memory://x"), None, None)


def test_engine_ray_without_ray_installed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'mvlm\[ray\]'"):
        open_engine("ray", store, None, None)
