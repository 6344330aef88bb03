"""A store in a folder: whole files by renames, exclusive ones by links."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mvlm.compile.hardlinks import link_or_copy
from mvlm.compile.jobs.errors import store_error
from mvlm.compile.jobs.process import Process, this_process
from mvlm.compile.jobs.store.files import check_name

TEMPORARY = "tmp"
# Longer than any step works in one: of another machine's process nobody knows whether it lives.
_ABANDONED_SECONDS = 7 * 24 * 3600
_BLOCK_BYTES = 1 << 20
# A link or a pipe in a file's place could lead anywhere, or block for ever.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class LocalFiles:
    """The files of a store in a folder, which several machines may share.

    Args:
        folder: The folder; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    @property
    def url(self) -> str:
        """The store, as it can be named on another command line."""
        return self._folder.as_uri()

    @property
    def folder(self) -> Path | None:
        """The store's folder, if it is one."""
        return self._folder

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a file's content, or None."""
        with (
            self._store_errors(name),
            contextlib.suppress(FileNotFoundError),
            self._open(name) as fd,
        ):
            blocks, left = [], limit + 1
            while left and (block := os.read(fd, left)):
                blocks.append(block)
                left -= len(block)
            return b"".join(blocks)
        return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        with self._store_errors(name), self._written(data) as temporary:
            temporary.rename(self._with_parent(name))

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there yet."""
        with self._store_errors(name), self._written(data) as temporary:
            try:
                # A link is made whole, or refused because something is there.
                os.link(temporary, self._with_parent(name))
            except FileExistsError:
                return False
        return True

    def put(self, name: str, source: Path) -> None:
        """Write a file from one of ours."""
        with self._store_errors(name), self.scratch() as folder:
            temporary = folder / "put"
            link_or_copy(source, temporary)
            temporary.chmod(0o444)  # others will share it
            _sync(temporary)
            temporary.rename(self._with_parent(name))

    def get(self, name: str, path: Path, limit: int, *, linked: bool) -> bool:
        """Copy a file out of the store."""
        with self._store_errors(name):
            try:
                with self._open(name) as fd:
                    if not (linked and _linked(self._path(name), path)):
                        _copy(fd, path, limit)
            except FileNotFoundError:
                return False
        return True

    def size(self, name: str) -> int | None:
        """Return a file's size, or None."""
        with self._store_errors(name):
            try:
                status = self._path(name).lstat()
            except FileNotFoundError:
                return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        with self._store_errors(folder):
            try:
                return sorted(path.name for path in self._path(folder).iterdir())
            except FileNotFoundError:
                return []

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._store_errors(name):
            self._path(name).unlink(missing_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a folder below ``tmp/``; see :class:`Files`.

        It is removed when the block ends; one whose process was killed by :meth:`gc`.
        """
        with self._store_errors(TEMPORARY):
            parent = self._folder / TEMPORARY
            parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix=f"{_scratch_prefix(this_process())}-", dir=parent))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def gc(self) -> None:
        """Remove the scratch folders of processes that are gone."""
        for name in self.names(TEMPORARY):
            place = self._folder / TEMPORARY / name
            with contextlib.suppress(OSError):
                if _is_abandoned(name) or time.time() - place.lstat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(place, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / check_name(name)

    def _with_parent(self, name: str) -> Path:
        """Return a file's path, whose folder is there."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        fd = os.open(self._path(name), _READ)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(None, "not a regular file")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        with self.scratch() as folder:
            temporary = folder / "document"
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary

    @contextmanager
    def _store_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise store_error(str(self._folder / name), error) from error


def _linked(source: Path, path: Path) -> bool:
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError:
        return False
    return True


def _copy(fd: int, path: Path, limit: int) -> None:
    left = limit + 1
    with path.open("xb") as file:
        while left and (block := os.read(fd, min(left, _BLOCK_BYTES))):
            file.write(block)
            left -= len(block)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _scratch_prefix(process: Process) -> str:
    """Return the beginning of the names of a process's scratch folders."""
    namespace = hashlib.sha256(process.pid_namespace.encode()).hexdigest()[:12]
    return f"{namespace}-{process.pid}-{process.started}"


def _is_abandoned(name: str) -> bool:
    """Whether a scratch folder's process is gone."""
    parts = name.split("-")
    if len(parts) < 4 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    owner = replace(this_process(), pid=int(parts[1]), started=int(parts[2]))
    return name.startswith(_scratch_prefix(owner)) and owner.is_gone
