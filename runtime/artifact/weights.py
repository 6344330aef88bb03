"""The weights: files of parameters end to end, each aligned, mapped by mmap and never copied.

Decoding reads every weight once a token. Where the system's page cache has them in pages of 4 KB,
the processor's translation of addresses holds the reading up: on a virtual machine a token of the
1.4B decoder took 49.4 ms, and 42.4 with pages of 2 MB.

Linux chooses the size when a file is first read. It takes 2 MB where the reader has mapped the file
with `MADV_HUGEPAGE`, and the file system supports it (ext4 since Linux 6.16, XFS, Btrfs). What a
program has written or read otherwise stays in smaller pages until it is dropped from the cache.
Elsewhere these calls have no effect, or fail, which is ignored.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.artifact.json_object import build, read_json_object
from mvlm.runtime.artifact.layout import WEIGHT_ALIGNMENT, WEIGHTS, WEIGHTS_INDEX
from mvlm.runtime.errors import ArtifactError

_DTYPES = ("float32", "float16", "uint32", "int32", "int16", "uint8", "int8")
_LAYOUT = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_FILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}\.bin")
_MAX_TENSORS = 100_000
_MAX_RANK = 8

HUGE_PAGE_BYTES = 2 << 20
# Linux 5.14; unlike a read of the mapping, it returns an error where the file has become shorter.
_MADV_POPULATE_READ = 22
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPPINGS = Path("/proc/self/smaps")


@dataclass(frozen=True)
class TensorEntry:
    """One parameter: name, shape, NumPy dtype, file below `weights/`, place there in bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    offset: int

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.file):
            raise ValueError(f"{self.name} lies in {self.file!r}, which is no plain file name")
        if self.dtype not in _DTYPES:
            raise ValueError(f"{self.name} has dtype {self.dtype!r}, none of {', '.join(_DTYPES)}")
        if not 1 <= len(self.shape) <= _MAX_RANK or any(extent <= 0 for extent in self.shape):
            raise ValueError(f"{self.name} has shape {self.shape}")
        if self.offset < 0 or self.offset % WEIGHT_ALIGNMENT:
            raise ValueError(f"{self.name} lies at {self.offset}, which is not aligned")

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class WeightsIndex:
    """The parameters in the order in which the compiled functions take them.

    Attributes:
        layout: The name of the layout that the matrices of linear layers have.
        tensors: The parameters.
    """

    layout: str
    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        if not _LAYOUT.fullmatch(self.layout):
            raise ValueError(f"the layout of the weights is named {self.layout[:40]!r}")
        if not 0 < len(self.tensors) <= _MAX_TENSORS:
            raise ValueError(f"{len(self.tensors)} tensors")
        if len({entry.name for entry in self.tensors}) != len(self.tensors):
            raise ValueError("a tensor is named twice")
        placed = sorted(self.tensors, key=lambda entry: (entry.file, entry.offset))
        for before, after in pairwise(placed):
            if before.file == after.file and before.offset + before.nbytes > after.offset:
                raise ValueError(f"{before.name} and {after.name} overlap")

    def to_json(self) -> dict[str, Any]:
        """Return the index as plain JSON values."""
        tensors = [asdict(entry) | {"shape": list(entry.shape)} for entry in self.tensors]
        return {"layout": self.layout, "tensors": tensors}


def read_weights_index(folder: Path) -> WeightsIndex:
    """Read ``weights/index.json``.

    Raises:
        ArtifactError: It breaks the format.
    """
    document = read_json_object(folder / WEIGHTS_INDEX)
    return build(
        document.where,
        lambda: WeightsIndex(
            document.get("layout", str),
            tuple(
                TensorEntry(
                    entry.get("name", str),
                    entry.list_of("shape", int),
                    entry.get("dtype", str),
                    entry.get("file", str),
                    entry.get("offset", int),
                )
                for entry in document.children("tensors")
            ),
        ),
    )


def map_weights(folder: Path) -> list[npt.NDArray[Any]]:
    """Map the parameters into memory, in the order of the index.

    The arrays are views of private mappings: untouched pages cost nothing and are shared between
    processes. They are marked writable only because DLPack hands over no others; nothing writes
    to them, and a write would stay in this process.

    Raises:
        ArtifactError: A tensor lies outside its file.
    """
    index = read_weights_index(folder)
    files = {
        name: map_file(folder / WEIGHTS / name)
        for name in sorted({entry.file for entry in index.tensors})
    }
    arrays = []
    for entry in index.tensors:
        mapped, end = files[entry.file], entry.offset + entry.nbytes
        if end > mapped.size:
            raise ArtifactError(
                f"{folder / WEIGHTS / entry.file}: tensor {entry.name} lies outside the file",
                expected=f"at most {mapped.size} bytes",
                found=f"its end at {end}",
                fix="Fetch or compile the artifact again.",
            )
        arrays.append(mapped[entry.offset : end].view(entry.dtype).reshape(entry.shape))
    return arrays


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """Map a file's bytes, in huge pages if there are: writable, but writes stay in this process.

    Raises:
        ArtifactError: The file cannot be read or mapped.
    """
    try:
        if path.stat().st_size == 0:  # which cannot be mapped
            return np.empty(0, np.uint8)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror})", fix="Fetch or compile the artifact again."
        ) from None
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
