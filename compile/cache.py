"""Finds the artifact of a model, compiling it if it is not there yet. Imports no tvm.

Artifacts are kept below the cache folder in folders named by everything that went into them, so
that a changed checkpoint, machine, compiler or scheme never finds a stale one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mvlm.compile.cache_folder import KEEP_ELSEWHERE, cache_folder
from mvlm.compile.compiler_process import CompileRequest, compile_in_child
from mvlm.compile.job import CompileJob
from mvlm.runtime.artifact.layout import MANIFEST
from mvlm.runtime.errors import UsageError
from mvlm.runtime.progress import Progress, no_progress

# Enough of the key that no two jobs meet.
_KEY_DIGITS = 16


def find_or_compile(
    request: CompileRequest,
    *,
    begin: Callable[[CompileJob, Path], None] = lambda job, artifact: None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = lambda text: None,
) -> Path:
    """Return the artifact of a checkpoint for this machine, compiling it if it is not in the cache.

    It is compiled in a child process, so that this one imports no compiler.

    Args:
        request: The checkpoint, and how it is quantized.
        begin: Called with the job and the artifact's folder before it is compiled.
        progress: Called as compiling proceeds.
        warn: Called with what the user should know of what was compiled.

    Raises:
        UsageError: A scheme is unknown, or the cache folder cannot be used.
        MvlmError: The checkpoint is not usable, or compiling failed.
    """
    job = request.plan()
    artifact = cached_artifact(job)
    prepare_place(artifact)
    if not is_artifact(artifact):
        begin(job, artifact)
        compile_in_child(request, artifact, progress, warn)
    return artifact


def cached_artifact(job: CompileJob) -> Path:
    """Return the place of a job's artifact, whether it is there or not.

    Raises:
        UsageError: No cache folder is known.
    """
    parts = (job.name, job.quantization.name, job.target.name, job.key()[:_KEY_DIGITS])
    return cache_folder() / "artifacts" / "-".join(parts)


def is_artifact(folder: Path) -> bool:
    """Whether a folder looks like an artifact; opening it is what verifies it."""
    return (folder / MANIFEST).is_file()


def prepare_place(artifact: Path) -> None:
    """Make the folder that a cached artifact lies in, and discard what is there in its place.

    Raises:
        UsageError: The cache folder cannot be made or read.
    """
    try:
        artifact.parent.mkdir(parents=True, exist_ok=True)
        if not is_artifact(artifact) and os.path.lexists(artifact):
            _discard(artifact)
    except OSError as error:
        raise UsageError(
            f"the cache folder {artifact.parent} cannot be used",
            found=error.strerror,
            fix=KEEP_ELSEWHERE,
        ) from None


def _discard(artifact: Path) -> None:
    """Remove what lies at an artifact's place without being an artifact.

    A cleaner of old files, for instance, has taken some of it. It is moved away first, and looked
    at again: another process may just have put a whole artifact there.
    """
    with tempfile.TemporaryDirectory(prefix=".discarded-", dir=artifact.parent) as folder:
        moved = Path(folder) / "moved"
        artifact.rename(moved)
        if is_artifact(moved) and not artifact.exists():
            moved.rename(artifact)
        elif moved.is_symlink() or moved.is_file():
            moved.unlink()
        else:
            shutil.rmtree(moved)
