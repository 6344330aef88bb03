"""A bundle as `mvlm package` makes it, run by its own commands on the emulated device."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mvlm.distribution.bundle import find_form, make_bundle
from mvlm.distribution.bundle import make as make_module
from tests.arm.conftest import Compile
from tests.arm.emulator import run_mvlm
from tests.arm.sysroot import FOLDER

QUICK = ("--runs", "1", "--prompt-tokens", "160", "--tokens", "4")


@pytest.fixture
def bundle(compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages are those of the emulated device, which were fetched in the same way."""
    artifact = compiled("snapdragon-888-cpu", "q4a8")

    def packages(folder: Path, versions: Sequence[str], _: str) -> None:
        shutil.copytree(FOLDER / "packages", folder, copy_function=os.link)

    def debian(folder: Path, *_: object) -> str:
        shutil.copytree(FOLDER / "root", folder, copy_function=os.link, symlinks=True)
        return "3.11"

    monkeypatch.setattr(make_module, "unpack_wheels", packages)
    monkeypatch.setattr(make_module, "unpack_debian", debian)
    output = tmp_path / "a bundle"
    make_bundle(artifact, find_form("android-adb"), output)
    return output


@pytest.mark.extended
def test_the_check_and_its_report(bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run_mvlm("device-check", bundle / "artifact", "-o", report, *QUICK, bundle=bundle)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found["device"]["architecture"] == "aarch64"
    assert "circle" in found["chat"]["text"]
    assert found["speeds"]["read_bandwidth_bytes_s"] > 0
    assert "| decode, tok/s |" in done.stdout


@pytest.mark.extended
def test_what_needs_the_compiler_says_so(bundle: Path) -> None:
    refused = run_mvlm("compile", "anything", bundle=bundle)
    assert refused.returncode == 1 and "the compiler is not installed" in refused.stderr
    assert json.loads(run_mvlm("targets", "--json", bundle=bundle).stdout)["targets"]
