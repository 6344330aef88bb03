"""TVM's runtime for Android, for which there are no wheels: built from the installed ones' sources.

The wheels carry the runtime's sources, but for a few small headers, which are in ``android/``.
What an artifact needs is in it: the virtual machine, memory, tensors, threads; not remote calls,
TVM's own KV caches, or devices other than the CPU.

``python -m mvlm.compile.toolchain.android_runtime DIR`` writes everything that building takes into
a folder, for a phone that has a compiler.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from mvlm.compile.cache_folder import ELSEWHERE, cache_folder, looking_in_cache
from mvlm.compile.toolchain.find import compiler_folder
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.artifact.verify import TVM_VERSION
from mvlm.runtime.errors import TargetError

LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so")
_OURS = Path(__file__).parent / "android"
_NDK_VARIABLE = "TVM_NDK_CC"
_SHOWN = 400  # characters of what the compiler says

# Of TVM's `src/runtime`, what the runtime of an artifact is made of.
_RUNTIME = (
    "const_loader_module.cc",
    "cpu_device_api.cc",
    "device_api.cc",
    "file_utils.cc",
    "logging.cc",
    "module.cc",
    "static_library.cc",
    "tensor.cc",
    "thread_pool.cc",
    "threading_backend.cc",
    "timer.cc",
    "workspace_pool.cc",
    "memory/memory_manager.cc",
    "vm/builtin.cc",
    "vm/bytecode.cc",
    "vm/executable.cc",
    "vm/vm.cc",
)
# Of tvm_ffi's sources, what is for other systems or for tests.
_NOT_FFI = shutil.ignore_patterns("*_win.cc", "testing")


def find_android_library(architecture: str) -> bytes:
    """Return the runtime's library for Android, building it with an NDK if need be.

    Raises:
        TargetError: It is not there, and no NDK is; or it cannot be built.
    """
    with looking_in_cache("the TVM runtime for Android"):
        folder = library_folder(architecture)
        is_there = all((folder / name).is_file() for name in LIBRARIES)
    if not is_there:
        compiler = os.environ.get(_NDK_VARIABLE)
        if not compiler:
            raise TargetError(
                "no TVM runtime for Android",
                expected=f"an NDK's clang++ in ${_NDK_VARIABLE}, or {' and '.join(LIBRARIES)} in "
                f"{folder}",
                found="neither",
                fix="`python -m mvlm.compile.toolchain.android_runtime DIR` writes what builds "
                "them on a phone, in Termux.",
            )
        with atomic_directory(folder, LIBRARIES[0], ELSEWHERE) as staging:
            build_libraries(staging, compiler)
    return (folder / LIBRARIES[1]).read_bytes()


def library_folder(architecture: str) -> Path:
    """Return the folder of the cache that the built libraries are in."""
    ffi = metadata.version("apache-tvm-ffi")
    return cache_folder() / "android" / f"{architecture}-tvm-{TVM_VERSION}-ffi-{ffi}"


def build_libraries(folder: Path, compiler: str) -> None:
    """Build both libraries into a folder.

    Args:
        folder: Where to.
        compiler: A C++ compiler's command.

    Raises:
        TargetError: It fails; quotes it.
    """
    with tempfile.TemporaryDirectory() as name:
        write_sources(Path(name))
        done = subprocess.run(
            ["sh", Path(name) / "build.sh"],
            env=os.environ | {"CXX": compiler},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TargetError(
                f"building TVM's runtime with {compiler} failed",
                found=done.stderr.strip()[-_SHOWN:],
            )
        for library in LIBRARIES:
            shutil.copyfile(Path(name) / library, folder / library)


def write_sources(folder: Path) -> None:
    """Write the sources of both libraries, and the script that builds them.

    Raises:
        TargetError: TVM is not installed.
    """
    tvm, ffi = compiler_folder("tvm"), compiler_folder("tvm_ffi")
    shutil.copytree(_OURS, folder, dirs_exist_ok=True)
    shutil.copytree(tvm / "include", folder / "include", dirs_exist_ok=True)
    sources = tvm / "src" / "runtime"
    for file in (*_RUNTIME, *_headers(sources)):
        place = folder / "src" / "runtime" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sources / file, place)
    shutil.copytree(ffi / "src", folder / "ffi" / "src", ignore=_NOT_FFI)
    shutil.copytree(ffi / "include", folder / "ffi" / "include")
    headers = ffi / "3rdparty" / "dlpack" / "include"
    if headers.is_dir():
        shutil.copytree(headers, folder / "ffi" / "3rdparty" / "dlpack" / "include")


def _headers(folder: Path) -> list[str]:
    parts = [folder, folder / "vm", folder / "memory"]
    return [path.relative_to(folder).as_posix() for part in parts for path in part.glob("*.h")]


def _main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("folder", type=Path, help="is made")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True)
    write_sources(folder)
    print(f"On the phone, in {folder.name}: pkg install clang; sh build.sh")
    print(f"Then copy {' and '.join(LIBRARIES)} into {library_folder('aarch64')}")


if __name__ == "__main__":
    _main()
