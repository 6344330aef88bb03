"""TVM's runtime from its sources, and artifacts that carry it to Android."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.compile.toolchain import find_linker
from mvlm.compile.toolchain.android_runtime import (
    LIBRARIES,
    build_libraries,
    find_android_library,
    library_folder,
    write_sources,
)
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.artifact.verify import check_machine
from mvlm.runtime.errors import ArtifactError, TargetError
from mvlm.runtime.machine import read_machine
from mvlm.runtime.targets import known_targets
from mvlm.runtime.targets.platforms import PLATFORMS
from tests.artifacts import ArtifactCache

KRYO = known_targets()["snapdragon-888-cpu"]


def test_android_runtime_sources(tmp_path: Path) -> None:
    write_sources(tmp_path)
    assert {"build.sh", "src", "include", "ffi"} <= {path.name for path in tmp_path.iterdir()}
    sources = {path.name for path in (tmp_path / "src" / "runtime").rglob("*.cc")}
    assert {"vm.cc", "executable.cc", "thread_pool.cc"} <= sources
    assert not {"backtrace_win.cc"} & {path.name for path in (tmp_path / "ffi").rglob("*.cc")}
    subprocess.run(["sh", "-n", tmp_path / "build.sh"], check=True)


def test_android_runtime_compiler_failure(tmp_path: Path, empty_cache: Path) -> None:
    script = tmp_path / "broken-cxx"
    script.write_text("#!/bin/sh\necho out of cheese >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(TargetError, match=r"building TVM's runtime with .*failed.*out of cheese"):
        build_libraries(tmp_path, str(script))


def test_android_runtime_without_ndk_and_libraries(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    words = r"no TVM runtime for Android.*\$TVM_NDK_CC.*android_runtime DIR` writes what builds"
    with pytest.raises(TargetError, match=words):
        find_android_library("aarch64")


@pytest.mark.extended
def test_an_artifact_for_android(
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a library of the right kind in the place of the runtime's, which takes an NDK."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: `make test` installs it")
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    folder = library_folder("aarch64")
    folder.mkdir(parents=True)
    source = tmp_path / "empty.c"
    source.write_text("void nothing(void) {}\n")
    linker = find_linker("aarch64", PLATFORMS["android"], KRYO.needs)
    for name in LIBRARIES:
        linker.run("linking", "-shared", "-o", folder / name, source)
    artifact = tmp_path / "artifact"
    job = plan_job(artifact_cache.checkpoint("text"), target=KRYO.name, platform="android")
    compile_job(job, artifact)
    target = read_manifest(artifact).target
    assert (target.requirements.platform, target.requirements.libc) == ("android", "30")
    assert target.requirements.page_bytes >= 16384
    assert (artifact / "lib/libtvm_runtime.so").read_bytes() == (folder / LIBRARIES[1]).read_bytes()
    with pytest.raises(ArtifactError):
        check_machine(read_manifest(artifact), read_machine())


_CHAT = """
import json, sys
from pathlib import Path
from mvlm.runtime.loader import load_runtime
load_runtime(Path(sys.argv[1]))
from mvlm.runtime.chat import Chat
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
chat = Chat(Model(Path(sys.argv[2])))
completion = chat.generate("Hello", [], SamplingParams(max_tokens=8)).completion
libraries = {line.split()[-1] for line in open("/proc/self/maps") if "libtvm_runtime" in line}
print(json.dumps([list(completion.token_ids), sorted(libraries)]))
"""


@pytest.mark.slow
def test_android_runtime_runs_an_artifact(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    """Built for this machine, by its own compiler: the same sources, and the same answer."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    build_libraries(tmp_path, compiler)
    ours, theirs = tmp_path / LIBRARIES[1], artifact_cache.artifact("text") / "lib" / LIBRARIES[1]

    def answer(library: Path) -> tuple[list[int], list[str]]:
        command = [sys.executable, "-c", _CHAT, library, artifact_cache.artifact("text")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        tokens, libraries = json.loads(done.stdout)
        return tokens, libraries

    assert answer(ours) == (answer(theirs)[0], [str(ours)])
