"""What the readers of one weight file have in common."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import CheckpointError
from mvlm.runtime.input_file import refuse_lfs_pointer

Array = npt.NDArray[Any]

# What a weight may be stored as, by numpy's names. `ml_dtypes` gives numpy the third.
FLOAT_DTYPES = ("float32", "float16", "bfloat16")

# How many names a message lists before it only counts.
_LISTED = 8

DOWNLOAD_AGAIN = "Download the file again."
USE_UNQUANTIZED = "Use the checkpoint that it was made from; mvlm quantizes by itself (`--quant`)."


# Bytes of a value, by numpy's names.
_ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2}


class TensorInfo(NamedTuple):
    """A tensor's shape, and its dtype by numpy's name (or the file's own, if numpy has none)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the values; of a dtype that no weight may have, their number."""
        return math.prod(self.shape) * _ITEM_BYTES.get(self.dtype, 1)


class TensorFile(Protocol):
    """One open weight file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All its tensors by name, without their data."""

    def read(self, name: str) -> Array:
        """One tensor, as an array of its own in the dtype of the file."""


def check_float(path: Path, name: str, dtype: str) -> None:
    """Refuse a tensor that is stored as anything but float32, float16 or bfloat16."""
    if dtype not in FLOAT_DTYPES:
        raise CheckpointError(
            f"{path}: tensor `{name}` has an unsupported dtype",
            expected=" or ".join(FLOAT_DTYPES),
            found=dtype,
            fix="Use the unquantized checkpoint.",
        )


def listed(names: Iterable[str]) -> str:
    """Some names for a message: the first few, and how many more there are."""
    ordered = sorted(names)
    rest = len(ordered) - _LISTED
    return ", ".join(ordered[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def read_start(path: Path) -> bytes:
    """Return the first bytes of a file of weights.

    Raises:
        CheckpointError: It cannot be read, or is a Git LFS pointer.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    refuse_lfs_pointer(path, start, CheckpointError)
    return start


def as_owned(array: Array) -> Array:
    """A C-order copy that does not hold the file open."""
    return np.array(array, order="C", copy=True)


def release_pages(address: int, nbytes: int) -> None:
    """Give the whole pages of a mapped file's stretch back; read again, they come again.

    They would count as ours until the file is closed, and files are larger than the memory.
    """
    page = mmap.PAGESIZE
    begin, end = -(-address // page) * page, (address + nbytes) // page * page
    if begin < end:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED
        )
