"""Runs compiled kernels on a device of this machine and times them.

A request and its answer are JSON objects. Kernels that are compared are measured interleaved, A B A
B, so that the machine's other load disturbs them alike.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.device.cpu import CpuDevice, aligned_copy
from mvlm.runtime.device.device import Device, DeviceArray
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.machine import read_machine
from mvlm.runtime.machine.state import read_state
from mvlm.runtime.threads import ThreadPool, fast_cores

Array = npt.NDArray[Any]

FUNCTION = "main"
# The version of requests and answers; a tuner refuses a device that speaks another one.
PROTOCOL = 2
# The least duration of one sample: long relative to the clock's resolution and a call's overhead.
_MIN_REPEAT_MS = 10
_MAX_CALLS = 2000
# Caches are flushed by cycling through copies of the arguments of so many bytes in all.
_FLUSH_BYTES = 512 << 20
_MAX_SHARE_OF_MEMORY, _MAX_COPIES = 0.25, 256
# Of a file of arguments: the largest layer of 7B takes 200 MB.
_MAX_ARGUMENT_BYTES = 1 << 30


@dataclass(frozen=True)
class MeasureRequest:
    """Which libraries to measure, and how.

    Attributes:
        arguments: An npz file of ``arg_0``, ``arg_1``..., outputs included.
        libraries: Shared libraries whose function `main` takes the arguments.
        repeat: Samples of each library.
        flush_cache: Whether arguments are read from memory, as weights are in decoding.
        outputs: An npz file for the arguments after a call of the first library; or None.
    """

    arguments: str
    libraries: tuple[str, ...]
    repeat: int
    flush_cache: bool
    outputs: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MeasureRequest:
        """Read a request; raises TypeError for a missing or an unknown key."""
        return cls(**{**values, "libraries": tuple(values["libraries"])})

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain JSON values."""
        return asdict(self)


def describe(threads: int) -> dict[str, Any]:
    """Describe this machine and its state: clocks, temperatures, load."""
    machine = read_machine()
    return {
        "protocol": PROTOCOL,
        "machine": asdict(machine)
        | {"features": sorted(machine.features), "core_parts": sorted(machine.core_parts)},
        "fast_cores": len(fast_cores()),
        "threads": threads,
        "state": read_state(),
    }


class KernelRunner:
    """Runs requests; caches the last request's arguments and their copies.

    Args:
        folder: The folder that the requests' paths are relative to.
        threads: Threads that kernels of the CPU run on.
        device: Where the kernels run; the CPU if None.
    """

    def __init__(self, folder: Path, threads: int, device: Device | None = None) -> None:
        self._folder, self._threads = folder, threads
        self._device = device or CpuDevice()
        self._loaded: tuple[str, list[Array]] = ("", [])
        self._copies: dict[bool, list[list[DeviceArray]]] = {}

    def run(self, request: MeasureRequest) -> dict[str, Any]:
        """Run a request.

        Returns:
            ``seconds``: for each library its samples, each the mean of one call.
        """
        arguments = self._arguments(request.arguments)
        with contextlib.ExitStack() as pools:
            functions = [self._function(library, pools) for library in request.libraries]
            if request.outputs is not None:
                self._write_outputs(functions[0], arguments, self._folder / request.outputs)
            copies = self._copies_of(arguments, request.flush_cache)
            calls = [self._calls(each, copies) for each in functions] if request.repeat else []
            seconds: list[list[float]] = [[] for _ in functions]
            for _ in range(request.repeat):
                for function, count, samples in zip(functions, calls, seconds, strict=True):
                    samples.append(self._seconds(function, copies, count) / count)
        return {"seconds": seconds}

    def _arguments(self, name: str) -> list[Array]:
        if self._loaded[0] != name:
            self._copies.clear()
            self._loaded = (name, read_arguments(self._folder / name))
        return self._loaded[1]

    def _copies_of(self, arguments: Sequence[Array], flush_cache: bool) -> list[list[DeviceArray]]:
        """Return as many copies as flush the cache, or one."""
        if flush_cache not in self._copies:
            nbytes = sum(array.nbytes for array in arguments)
            free = self._device.available_memory() or 1 << 30
            wanted = min(_FLUSH_BYTES if flush_cache else 0, int(_MAX_SHARE_OF_MEMORY * free))
            count = max(1, min(-(-wanted // max(nbytes, 1)), _MAX_COPIES))
            self._copies[flush_cache] = [self._uploaded(arguments) for _ in range(count)]
        return self._copies[flush_cache]

    def _uploaded(self, arguments: Sequence[Array]) -> list[DeviceArray]:
        """Upload a copy: kernels write to their arguments."""
        return [self._device.upload(aligned_copy(array)) for array in arguments]

    def _function(self, library: str, pools: contextlib.ExitStack) -> Callable[..., None]:
        """Load a function, and start its threads until `pools` are closed."""
        path = self._folder / library
        found: Callable[..., None] = tvm_ffi.load_module(os.fspath(path))[FUNCTION]
        pools.callback(ThreadPool(path, self._threads).close)
        return found

    def _write_outputs(
        self, function: Callable[..., None], arguments: Sequence[Array], path: Path
    ) -> None:
        arrays = self._uploaded(arguments)
        function(*arrays)
        save_arguments(path, [*map(self._device.download, arrays)])

    def _calls(self, function: Callable[..., None], copies: Sequence[list[DeviceArray]]) -> int:
        """Return the number of calls of one sample, after a warm-up."""
        function(*copies[0])
        each = self._seconds(function, copies[:8], len(copies[:8])) / len(copies[:8])
        calls = math.ceil(_MIN_REPEAT_MS / 1e3 / max(each, 1e-7))
        # Whole cycles, so that the next sample does not begin with copies that are still in a
        # cache.
        cycles = math.ceil(min(calls, _MAX_CALLS) / len(copies))
        return cycles * len(copies)

    def _seconds(
        self, function: Callable[..., None], copies: Sequence[list[DeviceArray]], calls: int
    ) -> float:
        """Time so many calls, whole cycles through the copies, from the first to the last's end."""
        self._device.synchronize()
        begin = time.perf_counter()
        for _ in range(calls // len(copies)):
            for arrays in copies:
                function(*arrays)
        self._device.synchronize()
        return time.perf_counter() - begin


def save_arguments(path: Path, arrays: Sequence[Array]) -> None:
    """Write arguments to an npz file, named as in a request."""
    named: dict[str, Any] = {f"arg_{index}": array for index, array in enumerate(arrays)}
    np.savez(path, **named)


def read_arguments(path: Path) -> list[Array]:
    """Read arguments from an npz file.

    Raises:
        ValueError: The file is not one of arguments, or too large.
    """
    if path.stat().st_size > _MAX_ARGUMENT_BYTES:
        raise ValueError(f"{path.name} is larger than {_MAX_ARGUMENT_BYTES} bytes")
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[f"arg_{index}"] for index in range(len(file.files))]
    except (KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is not a file of arguments: {error}") from None
