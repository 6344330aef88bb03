"""The CPU as a device: arrays are NumPy's, and nothing is copied that need not be.

TVM's code assumes that every tensor begins at a multiple of 64 bytes and reads with instructions
that fault otherwise; NumPy promises 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.device.device import Device, DeviceArray, HostArray, StagingBuffer
from mvlm.runtime.device.requirements import HOST
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.machine import available_memory_bytes

_ALIGNMENT = 64


class CpuDevice(Device):
    """The CPU of this process; its memory is the host's, and every call waits for its work."""

    kind = HOST
    dlpack_type = 1
    index = 0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Take memory; the system gives it page by page, when it is written."""
        return tvm_ffi.from_dlpack(aligned_empty(shape, dtype))

    def upload(self, array: HostArray) -> DeviceArray:
        """Return the same memory, or a copy if compiled code cannot read the array as it is."""
        return tvm_ffi.from_dlpack(aligned(array))

    def download(self, array: DeviceArray) -> HostArray:
        """Return a copy: the allocator hands an array's memory out again once that is gone."""
        copy: HostArray = np.from_dlpack(array).copy()
        return copy

    def staging(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> StagingBuffer:
        """Take memory that both sides share."""
        host = aligned_empty(shape, dtype)
        return StagingBuffer(host, tvm_ffi.from_dlpack(host), self.synchronize)

    def rows(self, array: DeviceArray, begin: int, end: int) -> DeviceArray:
        """Return a view, or a copy where the rows do not begin at an aligned address."""
        if (begin, end) == (0, array.shape[1]):
            return array
        return self.upload(np.from_dlpack(array)[:, begin:end])

    def concatenate(self, parts: Sequence[DeviceArray]) -> DeviceArray:
        """Copy the rows into one array."""
        if len(parts) == 1:
            return parts[0]
        arrays = [np.from_dlpack(part) for part in parts]
        _, _, width = arrays[0].shape
        joined = aligned_empty((1, sum(array.shape[1] for array in arrays), width), arrays[0].dtype)
        np.concatenate(arrays, axis=1, out=joined)
        return tvm_ffi.from_dlpack(joined)

    def copy_row(self, array: DeviceArray, source: int, target: int) -> None:
        """Copy the item through NumPy's view of the array."""
        view = np.from_dlpack(array)
        view[target] = view[source]

    def read_row(self, array: DeviceArray, index: int) -> HostArray:
        """Copy the item from NumPy's view of the array."""
        copy: HostArray = np.from_dlpack(array)[index].copy()
        return copy

    def write_row(self, array: DeviceArray, index: int, values: HostArray) -> None:
        """Write the item through NumPy's view of the array."""
        np.from_dlpack(array)[index] = values

    def synchronize(self) -> None:
        """Do nothing: calls return when their work is done."""

    def available_memory(self) -> int | None:
        """Return what this process may still take of the system's memory."""
        return available_memory_bytes()


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of undefined values that begins at a multiple of 64 bytes."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + nbytes].view(dtype).reshape(shape)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array, or a copy of it that is contiguous, aligned, and not read-only.

    DLPack has no word for arrays that are read-only.
    """
    flags = array.flags
    if array.ctypes.data % _ALIGNMENT == 0 and flags.c_contiguous and flags.writeable:
        return array
    return aligned_copy(array)


def aligned_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy that is contiguous and aligned."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
