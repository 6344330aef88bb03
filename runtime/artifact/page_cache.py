"""The weights in the system's page cache: in huge pages, where the system has them.

Decoding reads every weight once a token. Where the cache has pages of 4 KB, the processor's
translation of addresses holds the reading up: on a virtual machine a token of the 1.4B decoder took
49.4 ms, and 42.4 with pages of 2 MB.

Linux chooses the size when a file is first read. It takes 2 MB where the reader has mapped the file
with `MADV_HUGEPAGE`, and the file system supports it (ext4 since Linux 6.16, XFS, Btrfs). What a
program has written or read otherwise stays in smaller pages until it is dropped from the cache.
Elsewhere these calls have no effect, or fail, which is ignored.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

HUGE_PAGE_BYTES = 2 << 20
# Linux 5.14; unlike a read of the mapping, it returns an error where the file has become shorter.
_MADV_POPULATE_READ = 22
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPPINGS = Path("/proc/self/smaps")


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
    with _mapped(path):
        pass


def drop_small_pages(files: Sequence[Path]) -> None:
    """Drop files from the cache that are in small pages, where huge ones are to be had.

    The first file, which should be the largest, stands for all: it is read again, and the others
    are dropped if it then is in huge pages. Files that cannot be read are left to who reads them.
    """
    with contextlib.suppress(OSError):  # of the setting as well: the system has no huge pages
        if "[never]" in _HUGE_PAGES.read_text(encoding="ascii"):
            return
        largest, *others = files
        if largest.stat().st_size < HUGE_PAGE_BYTES or _is_in_huge_pages(largest):
            return
        _drop(largest)
        if _is_in_huge_pages(largest):
            for path in others:
                _drop(path)


def drop_from_cache(file: int) -> None:
    """Drop a file's pages that have been written to the disk and that no process has mapped.

    Args:
        file: Its descriptor.
    """
    if os.fstat(file).st_size >= HUGE_PAGE_BYTES:
        with contextlib.suppress(OSError):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        drop_from_cache(file.fileno())


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | None]:
    """Map a file for reading and read all of it; None if it is small or cannot be mapped."""
    with path.open("rb") as file:
        mapped = None
        if os.fstat(file.fileno()).st_size >= HUGE_PAGE_BYTES:
            with contextlib.suppress(OSError, ValueError):
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if mapped is None:
        yield None
        return
    with mapped:
        _advise(mapped, mmap.MADV_HUGEPAGE)
        _advise(mapped, _MADV_POPULATE_READ)
        yield mapped


def _is_in_huge_pages(path: Path) -> bool:
    """Read a file into the cache, and return whether a part of it is in huge pages."""
    with _mapped(path) as mapped:
        if mapped is None:
            return False
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        mappings = _MAPPINGS.read_text(encoding="utf-8", errors="replace")
    mapping = re.split(rf"(?m)^{address:08x}-", mappings, maxsplit=1)[-1]
    huge = re.search(r"FilePmdMapped: +(\d+) kB", mapping)
    return huge is not None and int(huge[1]) > 0


def _advise(mapped: mmap.mmap, advice: int) -> None:
    with contextlib.suppress(OSError):  # unknown to this system
        mapped.madvise(advice)
