"""What the runtime does with a device, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

# tvm_ffi's Tensor: an array in a device's memory. Its `shape` is a tuple.
DeviceArray = Any
HostArray = npt.NDArray[Any]


@dataclass(frozen=True)
class StagingBuffer:
    """A small array that the host writes before a call, and that the device reads within it.

    Attributes:
        host: NumPy's, for the host to write.
        array: The device's, for the call.
        commit: Copies the host's values to the device; to be called after writing.
    """

    host: HostArray
    array: DeviceArray
    commit: Callable[[], None]


class Device(ABC):
    """A device: its memory, copies from and to the host's, and the end of its work.

    The arrays in its memory are written by compiled functions alone. Work may be queued: a call
    returns before it is done, and what follows on the device waits for it.

    Attributes:
        kind: Its name in manifests.
        dlpack_type: The number of its kind, by DLPack's ``DLDeviceType``.
        index: Its number among the devices of its kind.
    """

    kind: str
    dlpack_type: int
    index: int

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Take memory for an array of undefined values."""

    @abstractmethod
    def upload(self, array: HostArray) -> DeviceArray:
        """Return a host's array in the device's memory.

        Both may share memory: the host must not write to the array any more.
        """

    @abstractmethod
    def download(self, array: DeviceArray) -> HostArray:
        """Return a copy in the host's memory, once the work that computes the array is done."""

    @abstractmethod
    def staging(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> StagingBuffer:
        """Take memory for values that the host writes again before each call."""

    @abstractmethod
    def rows(self, array: DeviceArray, begin: int, end: int) -> DeviceArray:
        """Return rows `begin` to `end` of ``(1, n, width)``, as compiled functions take arrays.

        They may share its memory where a view has no offset: compiled functions refuse one.
        """

    @abstractmethod
    def concatenate(self, parts: Sequence[DeviceArray]) -> DeviceArray:
        """Join the rows of arrays ``(1, n, width)``; a single array is returned as it is."""

    @abstractmethod
    def copy_row(self, array: DeviceArray, source: int, target: int) -> None:
        """Copy one item of an array's first axis to another."""

    @abstractmethod
    def read_row(self, array: DeviceArray, index: int) -> HostArray:
        """Return a copy of one item of an array's first axis in the host's memory."""

    @abstractmethod
    def write_row(self, array: DeviceArray, index: int, values: HostArray) -> None:
        """Set one item of an array's first axis."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work is done; to be called before a clock is read."""

    @abstractmethod
    def available_memory(self) -> int | None:
        """Return the bytes that may still be taken of its memory, or None where nothing says so."""
