"""Steps whose work is faked: results of a few bytes, and faults by the step's name.

Run as a program it is a worker: what `mvlm.compile.jobs.worker` runs, without the compiler. The
folder ``$MVLM_FAKE_FAULTS`` has a file for each step that shall fail, named by its key; a
line of it is what happens at one attempt.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.compile.jobs import worker, worker_process
from mvlm.compile.jobs.errors import DamagedError, StoreError
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS, JobSpec, StepRequest
from mvlm.compile.jobs.plan import MatrixPlan, Step
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.results import ArtifactResult, WeightsResult
from mvlm.runtime.artifact.layout import REQUIRED_FILES, RUNTIME_LIBRARY
from mvlm.runtime.artifact.manifest import AbiEntry, FileEntry, Manifest
from mvlm.runtime.artifact.target_entry import DeviceEntry, Requirements, TargetEntry
from mvlm.runtime.artifact.verify import digest_file
from mvlm.runtime.device.requirements import CpuRequirements
from mvlm.runtime.errors import CheckpointError
from mvlm.runtime.targets import find_description

if TYPE_CHECKING:
    import pytest

FAULTS = "MVLM_FAKE_FAULTS"
MODULE = "tests.compile.jobs.fakes"


def use_fake_workers(monkeypatch: pytest.MonkeyPatch, faults: Path) -> None:
    """Let steps be done by this module's `main`, which needs no compiler.

    Args:
        monkeypatch: Undoes it.
        faults: The folder that says what goes wrong.
    """
    monkeypatch.setenv(FAULTS, os.fspath(faults))
    # Workers do not search modules in the current folder.
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).parents[3]))
    monkeypatch.setattr(worker_process, "_MODULE", MODULE)


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def fake_step(kind: str, name: str, weights: str = "", memory: int = 1) -> Step:
    spec = JobSpec(
        "model", None, None, {"scheme": "q4a8"}, find_description("host"), "linux", 9, ""
    )
    labels = {"model": "m", "adapter": "", "quantization": "q4a8", "target": name, "platform": "x"}
    shared = key_of(weights or name)
    return Step(kind, key_of(name), name, labels, memory, shared, spec)


def fake_plan(jobs: int = 2, memory: int = 1) -> MatrixPlan:
    """Return a plan of weights ``w`` and the artifacts ``a0``, ``a1``, ... that share them."""
    names = [f"a{index}" for index in range(jobs)]
    artifacts = [fake_step(ARTIFACT, name, "w", memory) for name in names]
    steps = (fake_step(WEIGHTS, "w", memory=memory), *artifacts)
    return MatrixPlan(Path("matrix.toml"), steps, logs=Path("no-logs"))


def add_fake(store: Store, request: StepRequest | Step, folder: Path) -> None:
    """Add the result of a step: for a key always the same."""
    if request.kind == WEIGHTS:
        files = write_files(folder, ["weights/index.json"], request.key)
        store.add(WeightsResult(request.key, request.name, "0" * 64, files, {}), folder)
        return
    manifest = fake_manifest(folder, request.key)
    store.add(ArtifactResult(request.key, request.name, manifest, {}), folder)


def fake_manifest(folder: Path, text: str) -> Manifest:
    files = write_files(folder, list(REQUIRED_FILES), text)
    runtime = next(entry.sha256 for entry in files if entry.path == RUNTIME_LIBRARY)
    abi = AbiEntry("1", "1", {Path(RUNTIME_LIBRARY).name: runtime})
    parts = dict.fromkeys(("language", "embedding", "head", "vision", "cache"), "x")
    requirements = Requirements("linux", "2.17", 4096, 0)
    device = DeviceEntry("cpu", {"cpu": CpuRequirements("x86_64", ())})
    target = TargetEntry("host", device, {}, requirements)
    return Manifest({"name": "m"}, parts, target, abi, files, {}, {})


def write_files(folder: Path, paths: list[str], text: str) -> tuple[FileEntry, ...]:
    entries = []
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{path} of {text}")
        entries.append(FileEntry(path, file.stat().st_size, digest_file(file)))
    return tuple(entries)


def inject_fault(folder: Path, name: str, *attempts: str) -> None:
    """Let a step's attempts fail, each in its way."""
    (folder / key_of(name)).write_text("\n".join(attempts))


def _next_fault(key: str) -> str:
    folder = os.environ.get(FAULTS)
    path = Path(folder or "/nowhere") / key
    if not path.exists():
        return ""
    first, _, rest = path.read_text().partition("\n")
    path.write_text(rest)
    return first


def _fake_step_execution(
    request: StepRequest, store: Store, folder: Path, progress: object
) -> WeightsResult | None:
    kind, _, value = _next_fault(request.key).partition(" ")
    print(f"fault: {kind or 'none'}", flush=True)
    if kind == "sleep":
        time.sleep(float(value))
    elif kind == "die":
        os.kill(os.getpid(), getattr(signal, value))
    elif kind == "exit":
        os._exit(int(value))
    elif kind == "store":
        raise StoreError("the network is away")
    elif kind == "memory":
        raise MemoryError
    elif kind == "final":
        raise CheckpointError("tensor x is missing")
    elif kind == "bug":
        raise KeyError("lost")
    elif kind == "damaged":
        store.forget(WEIGHTS, request.weights)
        raise DamagedError("weights are damaged")
    elif kind == "half":
        # Killed between the files and the document that says that they are whole.
        (folder / "half").mkdir()
        write_files(folder / "half", ["weights/index.json"], request.key)
        os.kill(os.getpid(), signal.SIGKILL)
    add_fake(store, request, folder)
    return store.weights(request.key) if request.kind == WEIGHTS else store.artifact(request.key)


if __name__ == "__main__":
    execute = types.ModuleType("execute")
    execute.execute_step = _fake_step_execution  # type: ignore[attr-defined]
    sys.modules["mvlm.compile.jobs.execute"] = execute  # in the compiler's place
    worker.main(*sys.argv[1:])
