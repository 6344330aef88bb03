"""Unpacks Debian's packages for another architecture into a folder, with what they need.

By apt's own means, its sources, signatures and keys, but into a folder of ours: neither root nor a
change of the system is needed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mvlm.runtime.errors import MvlmError

_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_SHOWN = 300  # characters of what apt says


def unpack_debian(folder: Path, packages: Sequence[str], architecture: str) -> str:
    """Unpack packages and all that they depend on.

    Args:
        folder: Where to.
        packages: Their names; Python is one of them.
        architecture: As ``uname -m`` says it.

    Returns:
        The version of the Python that came along: ``3.11``.

    Raises:
        MvlmError: There is no apt here, or it cannot fetch them; quotes it.
    """
    with tempfile.TemporaryDirectory() as name:
        for package in fetch_debian(packages, architecture, Path(name)):
            _run("dpkg-deb", "--extract", str(package), str(folder))
    if not (folder / "lib").exists():  # newer Debians have it as a link
        (folder / "lib").symlink_to("usr/lib")
    interpreter = (folder / "usr" / "bin" / "python3").readlink().name
    return interpreter.removeprefix("python")


def fetch_debian(packages: Sequence[str], architecture: str, folder: Path) -> list[Path]:
    """Fetch packages and all that they depend on; return their files.

    Raises:
        MvlmError: There is no apt here, or it cannot fetch them; quotes it.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MvlmError(
                f"no {program} here",
                expected="Debian or Ubuntu, whose packages are fetched for the device",
                fix="Make the bundle there, or in a container.",
            )
    environment = os.environ | {"APT_CONFIG": str(_configuration(folder, _NAMES[architecture]))}
    wanted = [f"{name}:{_NAMES[architecture]}" for name in packages]
    # An empty status file: apt takes nothing as installed, and fetches all that is needed.
    install = ["install", "--download-only", "--yes", "--no-install-recommends", *wanted]
    for arguments in (["update"], install):
        _run("apt-get", "-qq", *arguments, environment=environment)
    return sorted((folder / "archives").glob("*.deb"))


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise MvlmError(
            f"{command[0]} failed",
            found=done.stderr.strip()[-_SHOWN:] or f"exit code {done.returncode}",
            fix="Is Debian's mirror reachable?",
        )


def _configuration(folder: Path, architecture: str) -> Path:
    """Write what makes apt work in a folder, with the system's sources and keys."""
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "APT::Architecture": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    lines = [f'{key} "{value}";' for key, value in settings.items()]
    here = _NAMES.get(platform.machine(), architecture)
    lines.append(f'APT::Architectures {{ "{architecture}"; "{here}"; }};')
    (folder / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "apt.conf"
