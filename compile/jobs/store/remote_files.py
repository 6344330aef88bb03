"""A store that fsspec reaches: S3 and the like, where a file appears when it is whole."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvlm.compile.jobs.errors import StoreError, store_error
from mvlm.compile.jobs.store.files import check_name

_BLOCK_BYTES = 1 << 20
# Where there are no folders: to make one could make a bucket of a name that was misspelt.
_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "http"}


class RemoteFiles:
    """The files below one prefix of a file system.

    Args:
        url: As the user names it.
        system: fsspec's file system.
        prefix: The path of the store in it.
    """

    def __init__(self, url: str, system: Any, prefix: str) -> None:
        self._url, self._system, self._prefix = url.rstrip("/"), system, prefix.rstrip("/")
        self._has_folders = url.partition("://")[0] not in _WITHOUT_FOLDERS

    @property
    def url(self) -> str:
        """The store, as it can be named on another command line."""
        return self._url

    @property
    def folder(self) -> Path | None:
        """The store's folder, if it is one."""
        return None

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a file's content, or None."""
        with self._store_errors(name), contextlib.suppress(FileNotFoundError):
            # Some file systems refuse a range that begins behind the end of an empty file.
            if not self.size(name):
                return None if self.size(name) is None else b""
            data: bytes = self._system.cat_file(self._path(name), start=0, end=limit + 1)
            return data
        return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        with self._store_errors(name):
            self._system.pipe_file(self._with_parent(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; see :class:`Files`.

        Exclusive where the file system has that, as S3 has. Elsewhere two that create a file in
        the same moment may both believe that they did, which makes them do a step twice.
        """
        with self._store_errors(name):
            try:
                self._system.pipe_file(self._with_parent(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def put(self, name: str, source: Path) -> None:
        """Write a file from one of ours."""
        with self._store_errors(name):
            self._system.put_file(str(source), self._with_parent(name))

    def get(self, name: str, path: Path, limit: int, *, linked: bool) -> bool:
        """Copy a file out of the store."""
        left = limit + 1
        with self._store_errors(name):
            try:
                with self._system.open(self._path(name), "rb") as source, path.open("xb") as file:
                    while left and (block := source.read(min(left, _BLOCK_BYTES))):
                        file.write(block)
                        left -= len(block)
            except FileNotFoundError:
                return False
        return True

    def size(self, name: str) -> int | None:
        """Return a file's size, or None."""
        with self._store_errors(name):
            try:
                found = self._system.info(self._path(name))
            except FileNotFoundError:
                return None
        return int(found["size"]) if found.get("type") == "file" else None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        path = self._path(folder)
        with self._store_errors(folder):
            self._system.invalidate_cache()
            try:
                found = self._system.ls(path, detail=False)
            except FileNotFoundError:
                return []
        inside = (str(each).rstrip("/").rpartition("/")[2] for each in found)
        return sorted({name for name in inside if name and not path.endswith(f"/{name}")})

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._store_errors(name), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a folder on a disk of this machine; see :class:`Files`."""
        with tempfile.TemporaryDirectory(prefix="mvlm-jobs-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{check_name(name)}"

    def _with_parent(self, name: str) -> str:
        """Return a file's path, whose folder is there."""
        path = self._path(name)
        if self._has_folders:
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    @contextmanager
    def _store_errors(self, name: str) -> Iterator[None]:
        """Turn whatever a file system raises into our errors; each has errors of its own."""
        try:
            yield
        except (StoreError, ValueError):
            raise
        except Exception as error:
            raise store_error(f"{self._url}/{name}", error) from error
