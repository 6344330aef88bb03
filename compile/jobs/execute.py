"""Executes one step: packs weights, or compiles an artifact over packed ones.

The only module of `jobs` that imports the compiler.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvlm.compile.driver import compile_job, pack_job
from mvlm.compile.jobs.errors import DamagedError
from mvlm.compile.jobs.messages import WEIGHTS, StepRequest
from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.results import ArtifactResult, WeightsResult
from mvlm.compile.packing import PackedWeights
from mvlm.runtime.artifact.manifest import FileEntry
from mvlm.runtime.artifact.verify import digest_file
from mvlm.runtime.errors import CheckpointError
from mvlm.runtime.machine import peak_rss_bytes
from mvlm.runtime.progress import Progress


def execute_step(
    request: StepRequest, store: Store, folder: Path, progress: Progress
) -> ArtifactResult | WeightsResult:
    """Execute a step and add its result to the store.

    Args:
        request: The step.
        store: Where the result goes.
        folder: An empty folder to work in.
        progress: Called as the work proceeds.

    Raises:
        MvlmError: It cannot be done.
    """
    begin = time.time()
    if request.kind == WEIGHTS:
        job = request.job.plan()
        # Read anew: this machine's copies of the checkpoint and of the data may be others.
        _check_key(request, job.weights_key())
        pack_job(job, folder / "weights", progress, _warn)
        files = tuple(_entry(path, folder / "weights") for path in _files(folder / "weights"))
        packed = WeightsResult(
            request.key, request.name, request.job.digest, files, _provenance(request, begin)
        )
        store.add(packed, folder / "weights")
        return packed
    store.fetch_files(request.job.logs, folder / "logs", linked=True)
    job = request.job.plan(folder / "logs")
    _check_key(request, job.key(request.job.digest, request.job.data_digest))
    manifest = compile_job(
        job,
        folder / "artifact",
        weights=_weights(request, store, folder),
        progress=progress,
        warn=_warn,
    )
    made = ArtifactResult(request.key, request.name, manifest, _provenance(request, begin))
    store.add(made, folder / "artifact")
    return made


def _warn(text: str) -> None:
    print(f"warning: {text}", flush=True)


def _weights(request: StepRequest, store: Store, folder: Path) -> PackedWeights:
    """Take the packed weights out of the store."""
    found = store.weights(request.weights)
    if found is None:
        raise DamagedError("the packed weights are gone", expected=request.weights[:16])
    try:
        store.fetch_files(found.files, folder / "packed", linked=True)
    except DamagedError:
        store.forget(WEIGHTS, request.weights)  # so that they are packed again
        raise
    return PackedWeights(folder / "packed", found.checkpoint)


def _check_key(request: StepRequest, key: str) -> None:
    """Refuse to make something else than what was asked for."""
    if key != request.key:
        raise CheckpointError(
            f"{request.name} is not here what it was where the matrix was planned",
            expected=f"key {request.key[:16]}",
            found=f"{key[:16]}",
            fix="The checkpoint or the calibration data changed, or this machine has another mvlm, "
            "package, linker or CPU: all workers need the same.",
        )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(path: Path, folder: Path) -> FileEntry:
    name = path.relative_to(folder).as_posix()
    return FileEntry(name, path.stat().st_size, digest_file(path))


def _provenance(request: StepRequest, begin: float) -> Mapping[str, Any]:
    return {
        "run": request.run,
        "worker": str(this_process()),
        "at": round(time.time(), 3),
        "seconds": round(time.time() - begin, 3),
        "peak_bytes": peak_rss_bytes(),
    }
