"""Digests of what goes into an artifact: the checkpoint's files and the compiler's own source.

Imports no tvm, so that looking an artifact up in the cache costs milliseconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from mvlm.runtime.artifact.verify import digest_file
from mvlm.runtime.folders import package_folder

# Everything whose change can change an artifact.
_SOURCES = ("mvlm.compile", "mvlm.models", "mvlm.schedules", "mvlm.runtime")
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "mvlm", "numpy")


def files_digest(files: Iterable[Path]) -> str:
    """Return one sha256 of some files: of their names and contents, not of their place."""
    return _digest_of((f"{file.parent.name}/{file.name}", digest_file(file)) for file in files)


def source_digest(packages: Iterable[str] = _SOURCES) -> str:
    """Return one sha256 of the source, in Python and C, of some packages.

    Args:
        packages: Their names; all whose change can change an artifact by default.
    """
    lines = []
    for package in packages:
        # Found and not imported: `mvlm.schedules` would import tvm.
        root = package_folder(package)
        for file in (*root.rglob("*.py"), *root.rglob("*.c")):
            name = f"{package}/{file.relative_to(root).as_posix()}"
            lines.append((name, digest_file(file)))
    return _digest_of(lines)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that generate the code."""
    return {name: metadata.version(name) for name in _PACKAGES}


def _digest_of(lines: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(lines):
        digest.update(f"{content}  ".encode() + os.fsencode(f"{name}\n"))
    return digest.hexdigest()
