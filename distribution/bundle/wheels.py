"""Fetches what our runtime needs on a device, from the package index, for its Python and CPU."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mvlm.runtime.errors import MvlmError
from mvlm.runtime.start_module import module_command

# Compatible with every glibc from 2.28.
_PLATFORMS = (
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_24",
    "manylinux_2_27",
    "manylinux_2_28",
)
_PURE = "-none-any.whl"
_SHOWN = 300  # characters of what pip says


def unpack_wheels(folder: Path, pythons: Sequence[str], architecture: str) -> None:
    """Fetch and unpack wheels into ``any`` and a folder for each version of Python.

    Raises:
        MvlmError: One cannot be fetched; quotes pip.
    """
    for version in pythons:
        with tempfile.TemporaryDirectory() as name:
            fetch_wheels(runtime_requirements(version), Path(name), version, architecture)
            for wheel in sorted(Path(name).glob("*.whl")):
                place = folder / ("any" if wheel.name.endswith(_PURE) else version)
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(place)
        (folder / version).mkdir(parents=True, exist_ok=True)


def runtime_requirements(python: str) -> list[str]:
    """Return what our package needs where nothing is compiled, with a version of Python.

    pip would judge conditions by the Python that it runs on, so they are judged here.
    """
    needed = []
    for requirement in map(Requirement, metadata.requires("mvlm") or ()):
        marker = requirement.marker
        if marker is None or marker.evaluate({"python_version": python, "extra": ""}):
            needed.append(f"{requirement.name}{requirement.specifier}")
    return needed


def fetch_wheels(
    requirements: Sequence[str],
    folder: Path,
    python: str,
    architecture: str,
    *,
    alone: bool = False,
) -> None:
    """Fetch wheels, and unless they are wanted alone those that they need, for another machine.

    Of what is installed here, the same versions are taken: those were tested together.

    Raises:
        MvlmError: One cannot be fetched; quotes pip.
    """
    command = module_command("pip", "--quiet", "download", "--only-binary=:all:")
    command += ["--dest", str(folder), "--python-version", python]
    command += ["--no-deps"] if alone else []
    command += [f"--platform={name}_{architecture}" for name in _PLATFORMS]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(_installed_versions()) + "\n")
        constraints.flush()
        command += ["--constraint", constraints.name]
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise MvlmError(
            f"packages for {architecture} and Python {python} cannot be fetched",
            found=" ".join(lines or [done.stderr.strip()])[-_SHOWN:],
            fix="Is the package index reachable? Once fetched, a bundle needs no network.",
        )


def _installed_versions() -> list[str]:
    """Return the versions of what is installed here, but for builds that no index has."""
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return [f"{name}=={version}" for name, version in found.items() if name and "+" not in version]
