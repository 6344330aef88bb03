"""Linkers, what they make, and the runtime's library for other machines."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import platform
import stat
import subprocess
import zipfile
from pathlib import Path
from unittest import mock

import pytest
import tvm
from tvm import relax

from mvlm.compile.compile_target import tvm_options
from mvlm.compile.pipeline import lower
from mvlm.compile.toolchain import Linker, find, find_linker, find_runtime_library
from mvlm.compile.toolchain.elf import library_needs
from mvlm.compile.toolchain.runtime_library import fetch_command
from mvlm.models.config.read import read_config
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.quantization import plan_quantization
from mvlm.runtime.artifact.verify import TVM_VERSION, version_numbers
from mvlm.runtime.errors import TargetError
from mvlm.runtime.machine import read_machine
from mvlm.runtime.targets import choose_platform, known_targets
from mvlm.runtime.targets.description import Needs
from mvlm.runtime.targets.platforms import PLATFORMS
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache

LINUX, ANDROID = PLATFORMS["linux"], PLATFORMS["android"]
HERE = platform.machine()
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[HERE]
KRYO = known_targets()["snapdragon-888-cpu"]
SYSTEM = {"syscall", "clock_gettime", "memset", "memcpy", "memmove", "expf", "erff", "sinf", "cosf"}
MEMBER, RECORD = "tvm/lib/libtvm_runtime.so", f"apache_tvm-{TVM_VERSION}.dist-info/RECORD"


@pytest.fixture
def no_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "package_folder", mock.Mock(side_effect=ModuleNotFoundError))


@pytest.fixture
def needs_zig() -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: `make test` installs it")


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_target_file_names_its_linker(tmp_path: Path) -> None:
    """As a Yocto toolchain, whose compiler wants options."""
    script = program(tmp_path, "aarch64-poky-linux-gcc", "exit 0")
    linker = find_linker("aarch64", LINUX, Needs(), f"{script} --sysroot=/opt/board")
    assert linker.command[:2] == (str(script), "--sysroot=/opt/board")
    assert linker.description == script.name
    with pytest.raises(TargetError, match=r"`toolchain\.linker` is not a program: found no-such"):
        find_linker("aarch64", LINUX, Needs(), "no-such-gcc")


def native() -> Linker:
    return find_linker(HERE, LINUX, Needs())


# --- this machine -------------------------------------------------------------------------------


def test_a_linker_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = program(tmp_path, "broken-cc", "echo out of cheese >&2; exit 3")
    monkeypatch.setenv("CC", str(script))
    with pytest.raises(
        TargetError, match=r"compiling thread_pool\.c with .*broken-cc.*out of cheese"
    ):
        native().link(tmp_path / "model.so", [])


def test_a_cc_that_is_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(TargetError, match=r"\$CC is not a program: found no-such-compiler"):
        native()


def test_a_cc_with_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ccache gcc` or `gcc -m64`, which build systems set."""
    monkeypatch.setenv("CC", "gcc -m64")
    assert native().command[1] == "-m64"


def test_an_empty_cc_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "")
    assert native().description in find._COMPILERS


def test_missing_linker(tmp_path: Path) -> None:
    linker = Linker((str(tmp_path / "gone"),), "gone")
    with pytest.raises(TargetError, match="gone"):
        linker.link(tmp_path / "out.so", [])


# --- another machine ----------------------------------------------------------------------------


def test_debians_cross_compiler_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{LINUX.triple_for(OTHER)}-gcc"
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin", name, "exit 0").parent))
    linker = find_linker(OTHER, LINUX, Needs())
    assert linker.description == name and Path(linker.command[0]).name == name


@pytest.mark.usefixtures("no_zig")
def test_no_cross_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = r"no C compiler to link for .*-linux-gnu.*ziglang.*apt-get install gcc-.*-linux-gnu"
    with pytest.raises(TargetError, match=words):
        find_linker(OTHER, LINUX, Needs())
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    with pytest.raises(TargetError, match=r"no C compiler.*-linux-android.*\$TVM_NDK_CC"):
        find_linker("aarch64", ANDROID, Needs())


def test_android_ndk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = program(tmp_path, "aarch64-linux-android30-clang", "exit 0")
    monkeypatch.setenv("TVM_NDK_CC", str(script))
    linker = find_linker("aarch64", ANDROID, Needs(page_bytes=16384))
    assert linker.command == (str(script), "-Wl,-z,max-page-size=16384")
    assert linker.libraries == ("-lm",) and "NDK" in linker.description
    monkeypatch.setenv("TVM_NDK_CC", "no-such-clang")
    with pytest.raises(TargetError, match=r"\$TVM_NDK_CC is not a program.*unset TVM_NDK_CC"):
        find_linker("aarch64", ANDROID, Needs())


def linked(checkpoint: Path, folder: Path, platform_name: str) -> Path:
    """The library of a small model of all parts, for the Snapdragon's cores."""
    machine, config = read_machine(), read_config(checkpoint)
    system = choose_platform(KRYO, platform_name, machine)
    target = tvm.target.Target(dict(tvm_options(KRYO, platform_name)))
    module, _ = MobileVLM(config, plan_quantization("q4a8"), PANELS).export(target)
    lowered = lower(module, target, "cpu", {"n": 64}).module
    with tvm.transform.PassContext(opt_level=3):
        executable = relax.build(lowered, target, relax_pipeline=None)
    linker = find_linker("aarch64", system, KRYO.needs)
    library = folder / "model.so"
    executable.export_library(str(library), fcompile=linker.link_files, workspace_dir=str(folder))
    return library


def exported(library: Path) -> set[str]:
    listed = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}


@pytest.mark.extended
@pytest.mark.usefixtures("needs_zig")
def test_an_android_library(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a loader there checks: names of libraries, that they have all symbols, pages."""
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    needs = library_needs(linked(artifact_cache.checkpoint("ldpnet"), tmp_path, "android"))
    assert set(needs.libraries) == {"libm.so", "libc.so", "libtvm_ffi.so"}
    assert needs.page_bytes >= 16384 and needs.glibc is None
    package = Path(tvm.__file__).parent
    tvms = exported(package / "lib" / "libtvm_runtime.so")
    tvms |= exported(package.parent / "tvm_ffi" / "lib" / "libtvm_ffi.so")
    assert needs.symbols & tvms
    # All that LLVM and the thread pool call beside; Android's libc and libm have it.
    assert needs.symbols - tvms <= SYSTEM


@pytest.mark.extended
@pytest.mark.usefixtures("needs_zig")
def test_a_kryo_library_for_linux(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    needs = library_needs(linked(artifact_cache.checkpoint("ldpnet"), tmp_path, "linux"))
    assert needs.page_bytes == KRYO.needs.page_bytes
    assert needs.glibc is not None
    assert version_numbers(needs.glibc) <= version_numbers("2.36")


# --- the runtime's library ----------------------------------------------------------------------


def wheel(cache: Path, library: bytes, listed: bytes | None = None) -> Path:
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"apache_tvm-{TVM_VERSION}-py3-none-manylinux_2_28_{OTHER}.whl"
    digest = hashlib.sha256(library if listed is None else listed).digest()
    encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, library)
        archive.writestr(RECORD, f"{MEMBER},sha256={encoded},{len(library)}\n")
    return path


def test_runtime_library_of_this_machine() -> None:
    expected = Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so"
    assert find_runtime_library(HERE, LINUX) == expected.read_bytes()


def test_runtime_library_of_another_machine_comes_from_its_wheel(empty_cache: Path) -> None:
    with pytest.raises(TargetError, match=rf"no TVM runtime for {OTHER}.*pip download"):
        find_runtime_library(OTHER, LINUX)
    assert f"manylinux_2_28_{OTHER}" in fetch_command(OTHER)
    wheel(empty_cache, b"\x7fELF and more")
    assert find_runtime_library(OTHER, LINUX) == b"\x7fELF and more"


@pytest.mark.parametrize("damage", ["another", "cut", "empty", "nothing", "too large"])
def test_a_damaged_wheel(empty_cache: Path, damage: str) -> None:
    path = wheel(empty_cache, b"library", b"another" if damage == "another" else None)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "nothing":
        with zipfile.ZipFile(path, "w"):
            pass
    elif damage == "too large":
        wheel(empty_cache, bytes((64 << 20) + 1))
    with pytest.raises(
        TargetError, match=r"is damaged.*Delete it, then `\S*python\S* -m pip download"
    ):
        find_runtime_library(OTHER, LINUX)


def test_glibc_versions() -> None:
    assert max(["2.9", "2.28", "2.17"], key=version_numbers) == "2.28"
