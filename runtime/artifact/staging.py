"""Writes a folder atomically: whole or not at all.

Files are written to a staging folder next to the destination, flushed to the disk, and published
by one rename. Whatever interrupts the writing - an error, Ctrl-C, a kill, a full disk - leaves
the destination as it was; a staging folder that a killed process left behind is swept up by the
next one that writes to the same place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvlm.runtime.artifact.layout import MANIFEST
from mvlm.runtime.artifact.weights import drop_from_cache
from mvlm.runtime.errors import ArtifactError, UsageError

_LOCK = ".lock"
# <fcntl.h> and <linux/fs.h>
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_OF_A_PLACE = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


@contextmanager
def atomic_directory(
    destination: Path, mark: str | None = MANIFEST, advice: str = "name another place with -o"
) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` when the block ends without an error.

    Args:
        destination: The folder to write.
        mark: The file by which a folder is known as one that may be replaced; by default an
            artifact's manifest. With None nothing is replaced but an empty folder.
        advice: How a user has it written elsewhere, as a clause.

    Raises:
        UsageError: The destination is something else than that.
        ArtifactError: The disk is full, or the folder cannot be written.
    """
    _check_replaceable(destination, mark, advice)
    with _explained(destination, advice):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        staging, lock = _claim(destination)
        try:
            content = staging / "content"
            content.mkdir()
            yield content
            _flush(content)
            _publish(content, destination, staging / "replaced")
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            os.close(lock)


def _check_replaceable(destination: Path, mark: str | None, advice: str) -> None:
    if not destination.exists() and not destination.is_symlink():
        return
    if destination.is_dir() and not destination.is_symlink():
        marked = mark is not None and (destination / mark).is_file()
        if marked or not any(destination.iterdir()):
            return
        found = "a folder with other files"
    else:
        found = "a file or a link"
    raise UsageError(
        f"{destination} is in the way",
        expected="nothing or an empty folder" + (", or one to replace" if mark else ""),
        found=found,
        fix=f"{advice[0].upper()}{advice[1:]}.",
    )


@contextmanager
def _explained(destination: Path, advice: str) -> Iterator[None]:
    """Turn the system's errors about `destination` into ones that say what to do.

    An error that names a file elsewhere, such as a checkpoint that went away, is not ours; nor is
    one that no other place would help against, such as too many open files.
    """
    try:
        yield
    except OSError as error:
        named = error.filename
        if named is not None and not _lies_beside(Path(os.fsdecode(named)), destination):
            raise
        if error.errno in _NOT_OF_A_PLACE:
            raise
        # NumPy tells of a write that came up short without a number.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        raise ArtifactError(
            f"cannot write {destination}",
            found="no space left on the disk" if full else (error.strerror or str(error)),
            fix=f"Free some space, or {advice}; nothing was left behind."
            if full
            else f"{advice[0].upper()}{advice[1:]}; nothing was left behind.",
        ) from error


def _lies_beside(path: Path, destination: Path) -> bool:
    """Whether `path` is the destination's folder, one that leads to it, or something within."""
    folder = destination.parent.absolute()
    return path.absolute() in folder.parents or path.absolute().is_relative_to(folder)


def _claim(destination: Path) -> tuple[Path, int]:
    """Make a staging folder and lock it.

    The lock is held until this process ends, however it ends: it tells a sweeper that we are alive.
    """
    prefix = f".{destination.name}.staging-"
    while True:
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
        # Another process may sweep the folder up before it is locked.
        with contextlib.suppress(FileNotFoundError):
            lock = _lock(staging, fcntl.LOCK_EX)
            if lock is not None:
                return staging, lock


def _sweep(destination: Path) -> None:
    """Remove staging folders whose process is gone."""
    for stale in destination.parent.glob(f".{glob.escape(destination.name)}.staging-*"):
        with contextlib.suppress(OSError):
            lock = _lock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is not None:
                shutil.rmtree(stale, ignore_errors=True)
                os.close(lock)


def _lock(staging: Path, how: int) -> int | None:
    """Lock a staging folder; None where what was locked has been swept up meanwhile.

    A process that waited for the lock of a sweeper holds a file that is gone, and another one may
    lie in its place by then: only the holder of the present file may use or remove the folder.
    """
    lock, is_held = os.open(staging / _LOCK, os.O_CREAT | os.O_RDWR), False
    try:
        fcntl.flock(lock, how)
        with contextlib.suppress(FileNotFoundError):
            is_held = os.path.samestat(os.fstat(lock), (staging / _LOCK).stat())
    finally:
        if not is_held:
            os.close(lock)
    return lock if is_held else None


def _flush(folder: Path) -> None:
    """Bring every file to the disk, so that a power cut after the rename loses none."""
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        drop_from_cache(handle)
    finally:
        os.close(handle)


def _publish(content: Path, destination: Path, replaced: Path) -> None:
    try:
        # Tried first, not looked at first: another compiler may publish between look and rename.
        content.rename(destination)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # A folder with files in it cannot be renamed over, so the two change places; the old one
        # then goes with the staging folder. A reader that has its files open keeps them.
        if not _exchange(content, destination):
            _replace(content, destination, replaced)
    _sync(destination.parent)


def _exchange(left: Path, right: Path) -> bool:
    """Let two folders change places in one step; False where the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here = ctypes.c_int(_AT_FDCWD)
    old, new = (ctypes.c_char_p(os.fsencode(path)) for path in (left, right))
    result: int = rename(here, old, here, new, ctypes.c_uint(_RENAME_EXCHANGE))
    return result == 0


def _replace(content: Path, destination: Path, replaced: Path) -> None:
    """Do the same in two steps, between which the place is empty, never half full."""
    destination.rename(replaced)
    try:
        content.rename(destination)
    except BaseException:
        replaced.rename(destination)
        raise
