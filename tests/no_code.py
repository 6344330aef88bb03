"""Compiling without generating code, which takes longest."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.compile import driver, manifest
from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.model_library import Library
from mvlm.models.mobilevlm import MobileVLM
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.target_entry import Requirements


def generate_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `compile_job` write empty files in the place of libraries; all else is as ever."""

    def instead(model: MobileVLM, target: CompileTarget, folder: Path, **_: object) -> Library:
        libraries = (f"{layout.LIBRARIES}/{name}" for name in target.runtime_libraries)
        for path in (layout.MODEL_LIBRARY, *libraries):
            (folder / path).write_text("{}")
        return Library(model.export(target.tvm)[1], working_bytes=0, kernel_traffic={})

    monkeypatch.setattr(driver, "write_library", instead)
    requirements = Requirements(platform="linux", libc="2.17", page_bytes=4096, memory_bytes=0)
    monkeypatch.setattr(manifest, "_requirements", lambda *_: requirements)
