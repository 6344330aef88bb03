"""Writes a bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mvlm.distribution.bundle.code import copy_code
from mvlm.distribution.bundle.debian import unpack_debian
from mvlm.distribution.bundle.forms import ARCHITECTURE, PLATFORM, Form
from mvlm.distribution.bundle.wheels import unpack_wheels
from mvlm.runtime.artifact import read_manifest, verify_files
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.errors import UsageError
from mvlm.runtime.folders import package_folder

# By which a folder is known as a bundle, that may be replaced.
MARK = "mvlm-bundle.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_LAUNCHERS = Path(__file__).parent / "launchers"
_IMAGE = "demo.png"
# What Debian's Python wants of the system; the C library comes along.
DEBIAN_PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6")

Progress = Callable[[str, int, int], None]


def make_bundle(
    artifact: Path,
    form: Form,
    output: Path,
    pythons: Sequence[str] = PYTHONS,
    progress: Progress = lambda step, done, total: None,
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        artifact: The model, compiled for the device.
        form: The kind of device.
        output: The bundle's folder; a bundle that is there already is replaced.
        pythons: Versions of Python that the device may have, where it has one.
        progress: Called as the work proceeds.

    Raises:
        UsageError: The artifact is for another kind of device, or something else is at `output`.
        ArtifactError: The artifact is damaged, or the disk is full.
        MvlmError: Packages cannot be fetched.
    """
    manifest = read_manifest(artifact)
    target = manifest.target
    architecture = target.device.cpu.architecture
    if (architecture, target.requirements.platform) != (ARCHITECTURE, PLATFORM):
        raise UsageError(
            f"{artifact} does not run on {form.summary}",
            expected=f"an artifact for {ARCHITECTURE}, {PLATFORM}",
            found=f"one for {architecture}, {target.requirements.platform}",
            fix="Compile it with --target snapdragon-888-cpu --platform linux, for instance.",
        )
    steps = 5
    with atomic_directory(output, mark=MARK) as folder:
        progress("artifact", 0, steps)
        verify_files(artifact, manifest)
        _copy_artifact(artifact, folder / "artifact")
        progress("code", 1, steps)
        copy_code(folder / "code")
        progress("python", 2, steps)
        if form.has_python:
            versions = pythons
        else:
            root = folder / "root"
            versions = [unpack_debian(root, DEBIAN_PYTHON, ARCHITECTURE)]
        progress("packages", 3, steps)
        unpack_wheels(folder / "packages", versions, ARCHITECTURE)
        progress("launchers", 4, steps)
        write_launchers(folder, form)
        _write_pages(folder, form)
        (folder / MARK).write_text(f"{form.name}\n{manifest.digest}\n", encoding="utf-8")
        progress("launchers", steps, steps)


def _copy_artifact(artifact: Path, place: Path) -> None:
    """Copy an artifact's files, as links to the same bytes where the file system allows it."""

    def copy(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copyfile(source, destination)

    shutil.copytree(artifact, place, copy_function=copy)


def write_launchers(folder: Path, form: Form) -> None:
    """Write the two commands, ``mvlm`` and the ``python`` that it is run by."""
    for source, name in (("mvlm.sh", "mvlm"), (f"{form.name}.sh", "python")):
        shutil.copyfile(_LAUNCHERS / source, folder / name)
        (folder / name).chmod(0o755)


def _write_pages(folder: Path, form: Form) -> None:
    """Write the guide, and an image to try it with."""
    shutil.copyfile(_LAUNCHERS / f"{form.name}.txt", folder / "README.txt")
    (folder / "images").mkdir()
    images = package_folder("mvlm.models") / "bundled" / "images"
    shutil.copyfile(images / _IMAGE, folder / "images" / _IMAGE)
