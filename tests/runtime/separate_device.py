"""A device whose memory is apart from the host's, though its kernels are the CPU's.

It does all that the runtime asks of a device as a GPU does: TVM's runtime allocates its arrays, and
only copies that it makes itself fill and read them. A compiled function gets arrays of the device
alone, and counts as running until the device is waited for.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.device.device import Device, DeviceArray, HostArray, StagingBuffer
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.loader import Functions


class SeparateDevice(Device):
    """The device.

    Attributes:
        copies: How often something was copied to the device or from it, by method.
        is_busy: Whether work was begun that nobody has waited for.
    """

    kind = "cpu"
    dlpack_type = 1
    index = 0

    def __init__(self) -> None:
        self.copies: Counter[str] = Counter()
        self.is_busy = False
        # Held, so that no address is given twice.
        self._arrays: dict[int, DeviceArray] = {}

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        kind = tvm_ffi.dtype(np.dtype(dtype).name)
        place = tvm_ffi.device("cpu", self.index)
        return self.own(allocate(tvm_ffi.Shape(shape), kind, place, None))

    def upload(self, array: HostArray) -> DeviceArray:
        uploaded = self.empty(array.shape, array.dtype)
        self.write(uploaded, array)
        self.copies["upload"] += 1
        return uploaded

    def download(self, array: DeviceArray) -> HostArray:
        self.require(array)
        self.copies["download"] += 1
        return self._read(array)

    def staging(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> StagingBuffer:
        host: HostArray = np.zeros(shape, dtype)
        array = self.empty(shape, dtype)

        def commit() -> None:
            self.write(array, host)
            self.copies["commit"] += 1

        return StagingBuffer(host, array, commit)

    def rows(self, array: DeviceArray, begin: int, end: int) -> DeviceArray:
        rows = self.empty((1, end - begin, array.shape[2]), str(array.dtype))
        self._copy(self._view(array, begin, end), rows)
        return rows

    def concatenate(self, parts: Sequence[DeviceArray]) -> DeviceArray:
        counts = [part.shape[1] for part in parts]
        joined, begin = self.empty((1, sum(counts), parts[0].shape[2]), str(parts[0].dtype)), 0
        for part, count in zip(parts, counts, strict=True):
            self._copy(part, self._view(joined, begin, begin + count))
            begin += count
        return joined

    def copy_row(self, array: DeviceArray, source: int, target: int) -> None:
        self._copy(self._row(array, source), self._row(array, target))

    def read_row(self, array: DeviceArray, index: int) -> HostArray:
        row: HostArray = self._read(self._row(array, index))[0]
        return row

    def write_row(self, array: DeviceArray, index: int, values: HostArray) -> None:
        self.write(self._row(array, index), values)

    def synchronize(self) -> None:
        self.is_busy = False

    def available_memory(self) -> int | None:
        return None

    def own(self, array: DeviceArray) -> DeviceArray:
        """Take an array as one of this device's."""
        self._arrays[array.data_ptr()] = array
        return array

    def require(self, argument: Any) -> None:
        """Refuse what is no array of this device, nor a list of such."""
        if isinstance(argument, tvm_ffi.Array):
            for each in argument:
                self.require(each)
            return
        assert isinstance(argument, tvm_ffi.Tensor), f"a host's {type(argument).__name__}"
        assert argument.data_ptr() in self._arrays, "an array that is not in the device's memory"

    def _view(self, array: DeviceArray, begin: int, end: int) -> DeviceArray:
        """Return rows at an offset, which copies take and compiled functions do not."""
        _, _, width = array.shape
        return self._part(array, (1, end - begin, width), begin * width)

    def _row(self, array: DeviceArray, index: int) -> DeviceArray:
        """Return one item of the first axis, as :meth:`_view` does."""
        return self._part(array, (1, *array.shape[1:]), index * math.prod(array.shape[1:]))

    def _part(self, array: DeviceArray, shape: tuple[int, ...], first: int) -> DeviceArray:
        self.require(array)
        offset = first * np.dtype(str(array.dtype)).itemsize
        view = tvm_ffi.get_global_func("runtime.TVMTensorCreateView")
        return view(array, tvm_ffi.Shape(shape), array.dtype, offset)

    def _copy(self, source: DeviceArray, destination: DeviceArray) -> None:
        tvm_ffi.get_global_func("runtime.TVMTensorCopyFromTo")(source, destination)

    def _read(self, array: DeviceArray) -> HostArray:
        self.synchronize()
        host: HostArray = np.empty(array.shape, str(array.dtype))
        read = tvm_ffi.get_global_func("runtime.TVMTensorCopyToBytes")
        read(array, ctypes.c_void_p(host.ctypes.data), host.nbytes)
        return host

    def write(self, array: DeviceArray, host: HostArray) -> None:
        """Copy an array of the host's into the device's memory."""
        source = np.ascontiguousarray(host)
        write = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        write(array, ctypes.c_void_p(source.ctypes.data), source.nbytes)


class SeparateFunctions(Functions):
    """The functions of an artifact, which take and return arrays of a device alone."""

    def __init__(self, functions: Functions, device: SeparateDevice) -> None:
        self._functions, self._device = functions, device

    def __getitem__(self, name: str) -> Callable[..., Any]:
        function, device = self._functions[name], self._device

        def call(*arguments: Any) -> DeviceArray:
            for argument in arguments:
                device.require(argument)
            result = function(*arguments)
            device.is_busy = True
            return device.own(result)

        return call

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def set_instrument(self, record: Callable[[str, bool], None]) -> None:
        def recorded(name: str, begins: bool) -> None:
            self._device.is_busy = True
            record(name, begins)

        self._functions.set_instrument(recorded)
