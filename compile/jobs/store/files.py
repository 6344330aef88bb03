"""What a store's files can do, whatever keeps them."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9][A-Za-z0-9._-]{0,199}){0,7}")


def check_name(name: str) -> str:
    """Return a file's name within a store; names are ours, so a bad one is a bug.

    Raises:
        ValueError: It could lead out of the store.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name!r} is no name of a file in a store")
    return name


class Files(Protocol):
    """A store's files by names such as ``leases/abc.json``. A missing file is None, never an error.

    All functions raise :class:`mvlm.compile.jobs.errors.StoreError` where the store fails.
    """

    @property
    def url(self) -> str:
        """The store, as it can be named on another command line."""

    @property
    def folder(self) -> Path | None:
        """The store's folder, if it is one on a disk of this machine."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a file's content; of one larger than `limit` the first `limit + 1` bytes."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that every reader finds the old content or the new one."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there yet; False, and nothing done, where it is."""

    def put(self, name: str, source: Path) -> None:
        """Write a file whole or not at all; `source` is ours, and may be linked to."""

    def get(self, name: str, path: Path, limit: int, *, linked: bool) -> bool:
        """Copy a file out of the store, but no more than `limit + 1` bytes of it.

        Args:
            name: The file.
            path: Where it goes; nothing may be there.
            limit: Its size, at most.
            linked: Whether `path` will only be read, so that it may be the same file.

        Returns:
            False where there is no such file.
        """

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes."""

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies in a folder; none where there is no such folder."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def scratch(self) -> AbstractContextManager[Path]:
        """Make a folder to work in, from which files are put without a copy where that can be."""
