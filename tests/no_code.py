"""Compiling without generating code, which takes longest."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.compile import driver, manifest
from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.job import CompileJob
from mvlm.models.mobilevlm import MobileVLM
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.target_entry import Requirements


def generate_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `compile_job` write empty files in the place of libraries; all else is as ever."""

    def instead(
        model: MobileVLM,
        job: CompileJob,
        target: CompileTarget,
        tuned: object,
        folder: Path,
        *_: object,
    ) -> driver.Library:
        libraries = (f"{layout.LIBRARIES}/{name}" for name in target.runtime_libraries)
        for path in (layout.MODEL_LIBRARY, layout.KERNELS, *libraries):
            (folder / path).write_text("{}")
        return driver.Library(model.export(target.tvm)[1], working_bytes=0, kernels=0)

    monkeypatch.setattr(driver, "_write_library", instead)
    requirements = Requirements(platform="linux", libc="2.17", page_bytes=4096, memory_bytes=0)
    monkeypatch.setattr(manifest, "_requirements", lambda *_: requirements)
