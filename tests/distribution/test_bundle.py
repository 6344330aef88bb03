"""Bundles: what is in them, and that they run; on an emulated device where they need one."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mvlm.distribution.bundle import FORMS, Form, find_form, make_bundle
from mvlm.distribution.bundle import make as make_module
from mvlm.distribution.bundle.debian import unpack_debian
from mvlm.distribution.bundle.wheels import fetch_wheels, runtime_requirements
from mvlm.runtime.artifact import layout, read_manifest
from mvlm.runtime.errors import ArtifactError, MvlmError, UsageError
from tests.artifacts import ArtifactCache

HERE = platform.machine()


@pytest.fixture
def nothing_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty packages in the place of those that would be fetched; any architecture will do."""

    def unpacked(folder: Path, versions: Sequence[str], _: str) -> None:
        for name in ("any", *versions):
            (folder / name).mkdir(parents=True)

    def debian(folder: Path, *_: object) -> str:
        folder.mkdir()
        return "3.11"

    monkeypatch.setattr(make_module, "unpack_wheels", unpacked)
    monkeypatch.setattr(make_module, "unpack_debian", debian)
    monkeypatch.setattr(make_module, "ARCHITECTURE", HERE)


@pytest.mark.usefixtures("nothing_fetched")
@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_contents_of_a_bundle(artifact_cache: ArtifactCache, tmp_path: Path, form: Form) -> None:
    artifact, output = artifact_cache.artifact("text"), tmp_path / "bundle"
    for _ in range(2):  # the second replaces the first
        make_bundle(artifact, form, output)
    assert read_manifest(output / "artifact") == read_manifest(artifact)
    for name in ("mvlm", "python"):
        assert os.access(output / name, os.X_OK)
        subprocess.run(["sh", "-n", output / name], check=True)
    assert "device-check" in (output / "README.txt").read_text(encoding="utf-8")
    code = {path.relative_to(output / "code").as_posix() for path in output.rglob("*.py")}
    assert {
        "mvlm/cli/chat.py",
        "mvlm/runtime/model.py",
        "mvlm/runtime/targets/catalogue.py",
    } <= code
    assert not [name for name in code if name.startswith(("mvlm/compile/", "mvlm/bench/studies/"))]
    assert (output / "code/mvlm/runtime/targets/boards/jetson-orin.toml").is_file()
    assert not list(output.rglob("__pycache__"))
    assert (output / "root").is_dir() is not form.has_python


@pytest.mark.usefixtures("nothing_fetched")
def test_a_bundle_chats_with_the_devices_python(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """This machine as the board: its packages are where the tests' are."""
    output = tmp_path / "bundle"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    make_bundle(artifact_cache.artifact("text"), find_form("linux-aarch64"), output, [version])
    packages = next(place for place in sys.path if (Path(place) / "numpy").is_dir())
    (output / "packages" / version).rmdir()
    (output / "packages" / version).symlink_to(packages)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = [output / "mvlm", "chat", "artifact", "--prompt", "Hello", "--json"]
    done = subprocess.run(
        [*command, "--max-tokens", "3"],
        cwd=output,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["usage"]["completion_tokens"] <= 3


@pytest.mark.usefixtures("nothing_fetched")
def test_a_python_version_without_wheels_is_named(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    make_bundle(artifact_cache.artifact("text"), find_form("linux-aarch64"), output, ["3.1"])
    done = subprocess.run([output / "mvlm", "chat"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no Python that this bundle has packages for: expected one of 3.1, found" in done.stderr


@pytest.mark.usefixtures("nothing_fetched")
def test_a_termux_device_without_proot(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    make_bundle(artifact_cache.artifact("text"), find_form("android-termux"), output)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(tools)}
    done = subprocess.run(
        [tools / "sh", output / "python"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 1 and b"pkg install proot" in done.stderr


def test_an_artifact_for_another_target_is_refused(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    if HERE == "aarch64":
        pytest.skip("this machine's artifacts are for it")
    words = r"does not run on a phone.*expected an artifact for aarch64, linux, found one for x86"
    with pytest.raises(UsageError, match=words):
        make_bundle(artifact_cache.artifact("text"), find_form("android-adb"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_fetched")
def test_a_damaged_artifact_is_refused(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    artifact = Path(shutil.copytree(artifact_cache.artifact("text"), tmp_path / "artifact"))
    with (artifact / layout.MODEL_LIBRARY).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="wrong size"):
        make_bundle(artifact, find_form("android-adb"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("nothing_fetched")
def test_an_occupied_output_folder_is_refused(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        make_bundle(artifact_cache.artifact("text"), find_form("android-adb"), tmp_path / "bundle")
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "mine"


def test_an_unknown_bundle_form_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected linux-aarch64 or .*found 'ios'"):
        find_form("ios")


def test_runtime_imports_match_the_declared_dependencies() -> None:
    names = {re.split("[<>=]", line)[0] for line in runtime_requirements("3.11")}
    assert {"numpy", "apache-tvm-ffi", "pillow", "sentencepiece", "typer", "rich"} <= names
    assert not names & {"apache-tvm", "torch", "tomli"}
    assert any(line.startswith("tomli") for line in runtime_requirements("3.10"))


def test_wheels_that_cannot_be_fetched_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(MvlmError, match=r"packages for aarch64 and Python 3\.11 cannot be fetched"):
        fetch_wheels(["numpy"], tmp_path, "3.11", "aarch64")


def test_missing_apt_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MvlmError, match="no apt-get here: expected Debian or Ubuntu"):
        unpack_debian(tmp_path / "root", ["python3-minimal"], "aarch64")
