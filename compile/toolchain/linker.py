"""A linker: what turns object files into a shared library for a target."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvlm.runtime.errors import TargetError

_SHOWN = 400  # characters of what a compiler says


@dataclass(frozen=True)
class Linker:
    """A C compiler used as a linker.

    Attributes:
        command: Its command line, to which files are added.
        description: What it is, for people and for the artifact's provenance.
        libraries: What is linked with. The code is position independent and calls libm only.
        stub_libraries: Makes, in a folder, stubs of the device's libraries that define what the
            object files do not; None where the linker has the device's.
    """

    command: tuple[str, ...]
    description: str
    libraries: tuple[str, ...] = ("-lm",)
    stub_libraries: Callable[[Linker, Sequence[Path], Path], Sequence[Path]] | None = None

    def link(self, output: Path, objects: Sequence[Path]) -> None:
        """Make a shared library of object files.

        Raises:
            TargetError: The linker failed; its message is quoted.
        """
        with tempfile.TemporaryDirectory(dir=output.parent) as folder:
            made = self.stub_libraries(self, objects, Path(folder)) if self.stub_libraries else ()
            self.run("-shared", "-o", output, *objects, *made, *self.libraries)

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

    def run(self, *arguments: str | Path) -> None:
        """Call the compiler.

        Raises:
            TargetError: It failed; its message is quoted.
        """
        command = [*self.command, *(os.fspath(argument) for argument in arguments)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise TargetError(f"{self.description} cannot be run", found=error.strerror) from None
        if result.returncode != 0:
            output = Path(arguments[arguments.index("-o") + 1]).name
            raise TargetError(
                f"linking {output} with {self.description} failed",
                found=(result.stderr.strip() or f"exit code {result.returncode}")[-_SHOWN:],
            )
