"""Copies our packages, as far as a device needs them."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from mvlm.runtime.folders import package_folder

# Studies need the compiler, which stays at home; the descriptions of devices are the runtime's.
PACKAGES = ("bench", "cli", "runtime")


def copy_code(folder: Path) -> None:
    """Write our packages, for PYTHONPATH, and what Python's metadata says of them."""
    for package in PACKAGES:
        source = package_folder(f"mvlm.{package}")
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "studies")
        shutil.copytree(source, folder / "mvlm" / package, ignore=ignored)
    distribution = metadata.distribution("mvlm")
    place = folder / f"mvlm-{distribution.version}.dist-info"
    place.mkdir()
    about = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    (place / "METADATA").write_text(about, encoding="utf-8")
