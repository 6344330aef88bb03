"""Hard links between equal weight files of artifacts on one disk.

Adapters leave most of a model as it is: the artifacts of ten of them need not hold the embedding
table ten times.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvlm.runtime.artifact.layout import WEIGHTS
from mvlm.runtime.artifact.manifest import FileEntry, Manifest
from mvlm.runtime.artifact.verify import digest_file


def link_equal_files(
    folder: Path, entries: Iterable[FileEntry], link_sources: Sequence[tuple[Path, Manifest]]
) -> int:
    """Replace weight files by links to equal ones of other artifacts.

    Args:
        folder: An artifact that is being written.
        entries: Its files.
        link_sources: Artifacts to link to. Their files' digests are computed, not only read from
            their manifests.

    Returns:
        The bytes that need not be held twice.
    """
    offered = {
        (entry.size, entry.sha256): place / entry.path
        for place, manifest in link_sources
        for entry in manifest.files
        if entry.path.startswith(f"{WEIGHTS}/")
    }
    saved = 0
    for entry in entries:
        other = offered.get((entry.size, entry.sha256))
        if other is not None and _link(other, folder / entry.path, entry.sha256):
            saved += entry.size
    return saved


def _link(other: Path, path: Path, digest: str) -> bool:
    """Put a link to `other` in the place of `path`; False where that cannot be done."""
    link = path.with_suffix(".link")
    try:
        if other.is_symlink() or digest_file(other) != digest:
            return False
        os.link(other, link)
    except OSError:  # it is gone, on another disk, or somebody else's
        return False
    link.replace(path)
    return True


def link_or_copy(source: Path, path: Path) -> None:
    """Put a file in another place too: as a link, or as a copy where there can be no link."""
    try:
        os.link(source, path)
    except OSError:  # on another disk, or one without links
        shutil.copyfile(source, path)
