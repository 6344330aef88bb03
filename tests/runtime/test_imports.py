"""The runtime needs neither the compiler nor torch, and starts fast because it loads neither."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mvlm.runtime
from tests.artifacts import ArtifactCache

FORBIDDEN = ("tvm", "torch", "transformers", "safetensors")
PACKAGES = ("mvlm.models", "mvlm.compile", "mvlm.schedules", "mvlm.cli", "mvlm.training")


def loaded_after(code: str) -> set[str]:
    """Modules of a fresh interpreter after running `code`."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def forbidden(modules: set[str]) -> set[str]:
    return {
        name for name in modules if name.split(".")[0] in FORBIDDEN or name.startswith(PACKAGES)
    }


def runtime_modules() -> list[str]:
    walked = pkgutil.walk_packages(mvlm.runtime.__path__, "mvlm.runtime.")
    return ["mvlm.runtime", *(module.name for module in walked)]


def test_all_modules_are_found() -> None:
    assert {"mvlm.runtime.chat", "mvlm.runtime.artifact.verify"} <= set(runtime_modules())


def test_no_module_loads_a_compiler() -> None:
    code = "\n".join(f"import {name}" for name in runtime_modules())
    assert not forbidden(loaded_after(code))


@pytest.mark.slow
@pytest.mark.parametrize("name", runtime_modules())
def test_each_module_can_be_imported_first(name: str) -> None:
    assert name in loaded_after(f"import {name}")


@pytest.mark.parametrize("name", ["mvlm.compile.cache", "mvlm.compile.job"])
def test_looking_into_the_cache_loads_no_compiler(name: str) -> None:
    modules = loaded_after(f"import {name}")
    assert not modules & {"tvm", "torch", "tvm_ffi"}


def test_a_whole_answer_loads_no_compiler(artifact_cache: ArtifactCache) -> None:
    """From the artifact to the text, where torch and tvm are installed and could be found."""
    modules = loaded_after(f"""
from pathlib import Path
import numpy as np
from mvlm.runtime.chat import Chat
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
chat = Chat(Model(Path({str(artifact_cache.artifact("ldpnet"))!r})))
pixels = np.zeros((1, 3, 56, 56), np.float32)
assert chat.generate("Hello?", [pixels], SamplingParams(max_tokens=4)).completion.token_ids
""")
    assert not forbidden(modules)


def test_torch_can_still_be_imported_afterwards() -> None:
    """It is hidden only while tvm_ffi is imported."""
    assert "torch" in loaded_after("import mvlm.runtime.model\nimport torch")


def test_a_torch_that_is_there_already_stays() -> None:
    assert "torch" in loaded_after("import torch\nimport mvlm.runtime.model\ntorch.zeros(1)")


def test_the_source_names_no_compiler() -> None:
    """A lazy import would pass the tests above until it is reached."""
    files = list(Path(next(iter(mvlm.runtime.__path__))).rglob("*.py"))
    assert len(files) >= len(runtime_modules()) > 30
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in FORBIDDEN, f"{file}: {line}"
                assert not words[1].startswith(PACKAGES), f"{file}: {line}"
