"""Finds the artifact of a model, compiling it if it is not there yet. Imports no tvm.

Artifacts are kept below ``$MVLM_CACHE`` (else ``$XDG_CACHE_HOME/mvlm``, else ``~/.cache/mvlm``) in
folders named by everything that went into them, so that a changed checkpoint, machine, compiler or
scheme never finds a stale one.
"""

from __future__ import annotations

import os
from pathlib import Path

from mvlm.compile.job import CompileJob
from mvlm.runtime.artifact.layout import MANIFEST

# Enough of the key that no two jobs meet.
_KEY_DIGITS = 16


def cache_folder() -> Path:
    """Return the folder in which artifacts are kept."""
    chosen = os.environ.get("MVLM_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvlm"


def cached_artifact(job: CompileJob) -> Path:
    """Return the place of a job's artifact, whether it is there or not."""
    name = f"{job.name}-{job.quantization.language.name}-{job.target}-{job.key()[:_KEY_DIGITS]}"
    return cache_folder() / "artifacts" / name


def is_artifact(folder: Path) -> bool:
    """Whether a folder looks like an artifact; opening it is what verifies it."""
    return (folder / MANIFEST).is_file()
