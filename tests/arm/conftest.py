"""Artifacts of the bundled model, for this machine and for the emulated device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from tests.arm.emulator import fetched_toolchain
from tests.once import make_once

Compile = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def compiled(shared_folder: Path) -> Compile:
    """Compile the bundled model for a target, in a scheme; once each."""

    def compile_for(target: str, scheme: str) -> Path:
        def make(artifact: Path) -> None:
            with fetched_toolchain():
                compile_job(plan_job(BUNDLED, target=target, quantization=scheme), artifact)

        return make_once(shared_folder / f"bundled-{Path(target).stem}-{scheme}", make)

    return compile_for
