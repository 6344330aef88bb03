"""Compiles the parts of a model once for all calibrations of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mvlm.compile.calibration import parts
from mvlm.models.observed import ObservedMobileVLM
from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.loader import Functions


@pytest.fixture(scope="module", autouse=True)
def parts_are_compiled_once() -> Iterator[None]:
    """Share code between calibrations in this process.

    It depends on the configuration alone, and compiling it takes most of a calibration of a small
    model. Tests of other processes compile it themselves, and that compiling is deterministic is
    tested elsewhere.
    """
    compile_parts = parts._compiled
    made: dict[str, tuple[Functions, dict[str, tuple[str, ...]]]] = {}

    def once(model: ObservedMobileVLM, folder: Path, longest: int, device: CpuDevice) -> Functions:
        key = f"{model.config} {model.decoder.embed_tokens.scheme} {longest}"
        if key not in made:
            made[key] = compile_parts(model, folder, longest, device), model.linear_layers
        functions, model.linear_layers = made[key]
        return functions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_compiled", once)
        yield
