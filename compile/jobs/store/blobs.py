"""Files kept once under their digest, which is verified on read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mvlm.compile.jobs.errors import DamagedError
from mvlm.compile.jobs.store.files import Files
from mvlm.runtime.artifact.manifest import FileEntry
from mvlm.runtime.artifact.verify import digest_file


def _name(digest: str) -> str:
    return f"blobs/sha256/{digest}"


class Blobs:
    """The blobs of a store; :class:`FileEntry` says which is meant and how large it is.

    Args:
        files: The store's.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def has(self, entry: FileEntry) -> bool:
        """Whether a blob of this digest and size is there; it is not read."""
        return self._files.size(_name(entry.sha256)) == entry.size

    def put(self, path: Path, entry: FileEntry) -> None:
        """Add a file, unless it is there."""
        if not self.has(entry):
            self._files.put(_name(entry.sha256), path)

    def get(self, entry: FileEntry, path: Path, *, linked: bool = False) -> None:
        """Take a file out and check it; `linked` says that `path` will only be read.

        Raises:
            DamagedError: It is missing, or is not what its name says; it is then taken away.
        """
        there = self._files.get(_name(entry.sha256), path, entry.size, linked=linked)
        size = path.stat().st_size if there else None
        if size != entry.size or digest_file(path) != entry.sha256:
            path.unlink(missing_ok=True)
            self._discard(entry, size)

    def check(self, entries: Iterable[FileEntry]) -> None:
        """Read blobs and compare them with their digests.

        Raises:
            DamagedError: As :meth:`get`.
        """
        with self._files.scratch() as folder:
            for entry in entries:
                self.get(entry, folder / "blob", linked=True)
                (folder / "blob").unlink()

    def _discard(self, entry: FileEntry, size: int | None) -> None:
        self._files.remove(_name(entry.sha256))
        raise DamagedError(
            f"{entry.path} is damaged in the store {self._files.url}",
            expected=f"{entry.size} bytes of sha256 {entry.sha256[:16]}...",
            found="no such file" if size is None else f"{size} bytes, or others",
            fix="Run the matrix again: it makes again what is missing.",
        )
