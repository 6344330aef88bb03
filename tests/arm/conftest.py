"""Artifacts of the bundled model, for this machine and for the emulated device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from mvlm.bench.studies.quality import BUNDLED
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from tests.arm.emulator import fetched_toolchain

Compile = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile the bundled model for a target, in a scheme; once each."""
    folder = tmp_path_factory.mktemp("artifacts")

    @functools.cache
    def compile_for(target: str, scheme: str) -> Path:
        artifact = folder / f"{Path(target).stem}-{scheme}"
        with fetched_toolchain():
            compile_job(plan_job(BUNDLED, target=target, quantization=scheme), artifact)
        return artifact

    return compile_for
