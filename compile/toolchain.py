"""Linkers: what turns object files into a shared library for a target."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvlm.runtime.errors import TargetError

_COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Linker:
    """A C compiler used as a linker.

    Attributes:
        command: Its command line, to which files are added.
        description: What it is, for people and for the artifact's provenance.
    """

    command: tuple[str, ...]
    description: str

    def link(self, output: Path, objects: Sequence[Path]) -> None:
        """Make a shared library of object files.

        Raises:
            TargetError: The linker failed; its message is quoted.
        """
        arguments = [*self.command, "-shared", "-o", os.fspath(output), *map(os.fspath, objects)]
        # The code is position independent and calls libm only.
        try:
            result = subprocess.run(
                [*arguments, "-lm"], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise TargetError(f"{self.description} cannot be run", found=error.strerror) from None
        if result.returncode != 0:
            raise TargetError(
                f"linking {output.name} with {self.description} failed",
                found=(result.stderr.strip() or f"exit code {result.returncode}")[-400:],
            )


def find_host_linker() -> Linker:
    """Find a C compiler for this machine: $CC, cc, gcc, clang, or zig from PyPI.

    Raises:
        TargetError: There is none.
    """
    chosen = os.environ.get("CC")
    for name in (chosen,) if chosen else _COMPILERS:
        # $CC may have arguments, such as `ccache gcc`.
        program, *arguments = shlex.split(name) or [""]
        path = shutil.which(program)
        if path:
            return Linker((path, *arguments), name)
    if chosen:
        raise TargetError("$CC is not a program", found=chosen, fix="Correct it, or unset CC.")
    if importlib.util.find_spec("ziglang"):
        return Linker((sys.executable, "-m", "ziglang", "cc"), "zig cc")
    raise TargetError(
        "no C compiler to link with",
        expected=", ".join(_COMPILERS) + " or the package ziglang",
        found="none of them",
        fix="`pip install ziglang` needs no root; `apt-get install gcc` does.",
    )
