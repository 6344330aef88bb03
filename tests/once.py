"""Files and folders that several test processes share: one process makes each, the others wait."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def make_once(path: Path, make: Callable[[Path], object]) -> Path:
    """Return a path that exactly one process makes, whole.

    What a maker that failed or was killed has left is removed before the next one begins: a mark
    beside the path, and not the path itself, says that it is whole.

    Args:
        path: Of the file or folder; the lock and the mark lie beside it.
        make: Called with the path, which does not exist then.
    """
    mark = path.with_name(f"{path.name}.made")
    if not mark.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f"{path.name}.lock")):
            if not mark.exists():
                _remove(path)
                make(path)
                mark.touch()
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
