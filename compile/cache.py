"""Finds the artifact of a model, compiling it if it is not there yet. Imports no tvm.

Artifacts are kept below the cache folder in folders named by everything that went into them, so
that a changed checkpoint, machine, compiler or scheme never finds a stale one.
"""

from __future__ import annotations

from pathlib import Path

from mvlm.compile.cache_folder import cache_folder
from mvlm.compile.job import CompileJob
from mvlm.runtime.artifact.layout import MANIFEST

# Enough of the key that no two jobs meet.
_KEY_DIGITS = 16


def cached_artifact(job: CompileJob) -> Path:
    """Return the place of a job's artifact, whether it is there or not."""
    parts = (job.name, job.quantization.language.name, job.target.name, job.key()[:_KEY_DIGITS])
    return cache_folder() / "artifacts" / "-".join(parts)


def is_artifact(folder: Path) -> bool:
    """Whether a folder looks like an artifact; opening it is what verifies it."""
    return (folder / MANIFEST).is_file()
