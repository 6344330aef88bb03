"""The bundled model, compiled for this machine."""

from __future__ import annotations

from pathlib import Path

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job

BUNDLED = Path(__file__).parents[2] / "models" / "bundled" / "mobilevlm-shapes"


def compile_bundled(quantization: str, folder: Path, checkpoint: Path = BUNDLED) -> Path:
    """Compiles the bundled model, or another of its world, into a folder below `folder`."""
    artifact = folder / quantization
    compile_job(plan_job(checkpoint, quantization=quantization), artifact)
    return artifact
