"""The weights in the system's page cache: in huge pages, where the system has them.

Decoding reads every weight once a token. Where the cache has pages of 4 KB, the processor's
translation of addresses holds the reading up: on a virtual machine a token of the 1.4B decoder took
49.4 ms, and 42.4 with pages of 2 MB.

Linux chooses the size when a file is first read. It takes 2 MB where the reader has mapped the file
with `MADV_HUGEPAGE`, and the file system supports it (ext4 since Linux 6.16, XFS, Btrfs). A file
that has just been written is cached in smaller pages, so it is dropped from the cache. Elsewhere
these calls have no effect, or fail, which is ignored.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

HUGE_PAGE_BYTES = 2 << 20
# Linux 5.14; unlike a read of the mapping, it returns an error where the file has become shorter.
_MADV_POPULATE_READ = 22


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """Map a file's bytes, which must not be none: writable, but writes stay in this process.

    Raises:
        OSError: The file cannot be opened or mapped.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    _advise(mapped, mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapped, np.uint8)


def read_into_cache(path: Path) -> None:
    """Read a file into the cache, in huge pages unless it is there already.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file, contextlib.suppress(OSError, ValueError):  # not to be mapped
        if os.fstat(file.fileno()).st_size < HUGE_PAGE_BYTES:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            _advise(mapped, mmap.MADV_HUGEPAGE)
            _advise(mapped, _MADV_POPULATE_READ)


def drop_from_cache(file: int) -> None:
    """Drop a file's pages that have been written to the disk and that no process has mapped.

    Args:
        file: Its descriptor.
    """
    if os.fstat(file).st_size >= HUGE_PAGE_BYTES:
        with contextlib.suppress(OSError):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _advise(mapped: mmap.mmap, advice: int) -> None:
    with contextlib.suppress(OSError):  # unknown to this system
        mapped.madvise(advice)
