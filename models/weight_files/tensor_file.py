"""Named tensors in files of weights: one open file, a folder's files, checks of the values."""

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

# What infinity becomes if it is not refused: the largest value that every storage can hold.
LARGEST = 65504.0

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


class Weights:
    """The tensors of one folder, by the names that its files give them.

    Args:
        holders: For each tensor the open file that holds it.
        index: The file that says which file holds what, if there are several.
    """

    def __init__(self, holders: Mapping[str, TensorFile], index: Path | None = None) -> None:
        self._holders = holders
        self._index = index

    def names(self) -> tuple[str, ...]:
        """All tensors' names, sorted."""
        return tuple(sorted(self._holders))

    def files(self) -> tuple[Path, ...]:
        """The files that the weights come from, sorted, with the index."""
        files = {holder.path for holder in self._holders.values()}
        return tuple(sorted(files | ({self._index} if self._index else set())))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].shape

    def dtype(self, name: str) -> str:
        """A tensor's dtype by numpy's name; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].dtype

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor in its file; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].nbytes

    def read(self, name: str) -> Array:
        """One tensor; KeyError if there is none of that name.

        Raises:
            CheckpointError: It is not stored as float32, float16 or bfloat16.
        """
        return self._holders[name].read(name)


def check_float(path: Path, name: str, dtype: str) -> None:
    """Refuse a tensor that is stored as anything but float32, float16 or bfloat16."""
    if dtype not in FLOAT_DTYPES:
        raise CheckpointError(
            f"{path}: tensor `{name}` has an unsupported dtype",
            expected=" or ".join(FLOAT_DTYPES),
            found=dtype,
            fix="Use the unquantized checkpoint.",
        )


def check_finite(name: str, tensor: Array, *, allow: bool = False) -> Array:
    """Return a tensor of finite values.

    Args:
        name: The tensor's, for the message.
        tensor: Of any float type.
        allow: Take 0 for NaN and :data:`LARGEST` for infinity, and return float32.

    Returns:
        `tensor` itself if all its values are finite.

    Raises:
        CheckpointError: It holds NaN or infinity, and `allow` is false.
    """
    # A sum is finite only if every term is, and costs no second array of the tensor's size.
    with np.errstate(invalid="ignore", over="ignore"):
        total = tensor.sum(dtype=np.float64)
    if np.isfinite(total):
        return tensor
    with np.errstate(over="ignore"):
        wide = tensor.astype(np.float32)
    wrong = int((~np.isfinite(wide)).sum())
    if not allow:
        raise CheckpointError(
            f"tensor {name} holds NaN or infinite values",
            expected="finite weights",
            found=f"{wrong} of {tensor.size}",
            fix="Download the checkpoint again, or ask its authors. `mvlm compile` and "
            "`mvlm convert` with --allow-nonfinite take 0 for NaN and "
            f"{LARGEST:.0f} for infinity.",
        )
    replaced: Array = np.nan_to_num(wide, nan=0, posinf=LARGEST, neginf=-LARGEST)
    return replaced


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
