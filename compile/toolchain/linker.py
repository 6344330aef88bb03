"""A linker: what turns kernels' object files and the thread pool into a shared library."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mvlm.runtime.errors import TargetError
from mvlm.runtime.folders import package_folder

_SHOWN = 400  # characters of what a compiler says
_THREAD_POOL = "thread_pool.c"
# Freestanding: no header of the device's C library is there to be read.
_COMPILE = ("-std=c11", "-O2", "-fPIC", "-ffreestanding", "-fvisibility=hidden", "-w")


@dataclass(frozen=True)
class Linker:
    """A C compiler, used as a linker above all.

    Attributes:
        command: Its command line, to which files are added.
        description: What it is, for people and for the artifact's provenance.
        libraries: What is linked with: kernels call libm, the thread pool libc.
        stub_libraries: Makes, in a folder, stubs of the device's libraries that define what the
            object files do not; None where the linker has the device's.
    """

    command: tuple[str, ...]
    description: str
    libraries: tuple[str, ...] = ("-lm",)
    stub_libraries: Callable[[Linker, Sequence[Path], Path], Sequence[Path]] | None = None

    def link(self, output: Path, objects: Sequence[Path]) -> None:
        """Make a shared library of kernels' object files, and of the threads that run them.

        Raises:
            TargetError: The compiler failed; its message is quoted.
        """
        with tempfile.TemporaryDirectory(dir=output.parent) as name:
            folder = Path(name)
            thread_pool = folder / "thread_pool.o"
            thread_pool.write_bytes(_thread_pool(self))
            linked = [*objects, thread_pool]
            stubs = self.stub_libraries(self, linked, folder) if self.stub_libraries else ()
            inputs: list[str | Path] = [*linked, *stubs, *self.libraries]
            self.run(f"linking {output.name}", "-shared", "-o", output, *inputs)

    def link_files(self, output: str, objects: Sequence[str], **_: object) -> None:
        """The same as :meth:`link`, as TVM's exporter calls it."""
        self.link(Path(output), [Path(name) for name in objects])

    def identity(self) -> str:
        """Return what it is and its version, without the places where it is installed."""
        try:
            said = subprocess.run([*self.command, "--version"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return self.description
        first = said.stdout.decode(errors="replace").partition("\n")[0]
        return f"{self.description}: {first.strip()[:_SHOWN]}"

    def run(self, step: str, *arguments: str | Path) -> None:
        """Call the compiler.

        Args:
            step: What it does, for the error's message.
            arguments: Its arguments, behind those of the command line.

        Raises:
            TargetError: It failed; its message is quoted.
        """
        command = [*self.command, *(os.fspath(argument) for argument in arguments)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise TargetError(f"{self.description} cannot be run", found=error.strerror) from None
        if result.returncode != 0:
            raise TargetError(
                f"{step} with {self.description} failed",
                found=(result.stderr.strip() or f"exit code {result.returncode}")[-_SHOWN:],
            )


@cache
def _thread_pool(linker: Linker) -> bytes:
    """Compile the threads that run parallel loops (see `mvlm.runtime.threads`)."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "thread_pool.o"
        source = package_folder("mvlm.runtime") / "native" / _THREAD_POOL
        arguments = ("-c", *_COMPILE, "-o", output, source)
        linker.run(f"compiling {_THREAD_POOL}", *arguments)
        return output.read_bytes()
