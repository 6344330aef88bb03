"""Folders in the cache that long work is kept in, part by part, and the lock of each.

Of several processes that need one result, such as the weights steps of two layouts, one does the
work; the others wait for it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mvlm.compile.cache_folder import KEEP_ELSEWHERE, cache_folder
from mvlm.runtime.errors import UsageError

# Enough of the key that no two results meet.
_KEY_DIGITS = 16
_LOCK = "lock"
_POLL_SECONDS = 0.2

_Result = TypeVar("_Result")


def work_folder(kind: str, key: str) -> Path:
    """Return the folder of a result, and make it if it is not there.

    Args:
        kind: What results lie beside it, in the cache folder.
        key: The result's.

    Raises:
        UsageError: The cache cannot be used.
    """
    folder = cache_folder() / kind / key[:_KEY_DIGITS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    return folder


def find_or_make(
    folder: Path,
    find: Callable[[], _Result | None],
    make: Callable[[], _Result],
    waiting: Callable[[], None],
) -> _Result:
    """Return a folder's result; make it if it is not there, in one process alone.

    Args:
        folder: The folder.
        find: Returns the result; None where it is not finished.
        make: Makes it.
        waiting: Called again and again while another process works; what it raises ends the wait.

    Raises:
        UsageError: The folder cannot be used.
    """
    found = find()
    if found is None:
        with locked(folder, waiting):
            found = find()  # another process may have finished meanwhile
            if found is None:
                found = make()
    return found


@contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Within the block, be the only process that works in a folder.

    The system releases the lock when its holder ends, however it ends. The file stays: a process
    that waits has it open.

    Args:
        folder: The folder.
        waiting: Called again and again while another process works; what it raises ends the wait.

    Raises:
        UsageError: The folder cannot be used.
    """
    try:
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        while not _acquired(lock):
            waiting()
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)


def _acquired(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks, as some network mounts are. The lock saves work only: files
        # are written whole, and two processes with one key write the same ones.
        return True
    return True


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the cache folder {folder} cannot be used", found=error.strerror, fix=KEEP_ELSEWHERE
    )
