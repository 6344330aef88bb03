"""Runs compiled kernels on this machine and times them.

A request and its answer are JSON objects. Kernels that are to be compared take turns, A B A B, so
that what the machine does besides disturbs them alike.
"""

from __future__ import annotations

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

from mvlm.runtime.aligned import aligned_empty
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.machine import available_memory_bytes, read_machine
from mvlm.runtime.machine.state import read_state
from mvlm.runtime.threads import fast_cores

Array = npt.NDArray[Any]

FUNCTION = "main"
# What one sample takes at least: long beside the clock's steps and a call's own time.
_LEAST_SECONDS = 0.01
_MOST_CALLS = 2000
# Arguments are read from memory, not from a cache, if so many bytes of others come between.
_COLD_BYTES = 512 << 20
_MOST_SHARE_OF_MEMORY, _MOST_COPIES = 0.25, 256
# Of a file of arguments: the 7B's largest layer takes 200 MB.
_MOST_ARGUMENT_BYTES = 1 << 30


@dataclass(frozen=True)
class Request:
    """What is to be run.

    Attributes:
        arguments: An npz file of ``arg_0``, ``arg_1``..., outputs included.
        libraries: Shared libraries whose function `main` takes them.
        rounds: Samples of each library.
        is_cold: Whether the arguments shall come from memory, as weights do while decoding.
        outputs: An npz file that gets the arguments as the first library leaves them; or None.
    """

    arguments: str
    libraries: tuple[str, ...]
    rounds: int
    is_cold: bool
    outputs: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """Read it; raises TypeError for a key that is not there, or not known."""
        return cls(**{**values, "libraries": tuple(values["libraries"])})

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def describe(threads: int) -> dict[str, Any]:
    """Describe this machine, and the state that it is in."""
    machine = read_machine()
    return {
        "machine": asdict(machine)
        | {"features": sorted(machine.features), "core_parts": sorted(machine.core_parts)},
        "fast_cores": len(fast_cores()),
        "threads": threads,
        "state": read_state(),
    }


class Measurer:
    """Runs requests; keeps the copies of the last one's arguments, for the next one of its like.

    Args:
        folder: Where the paths of requests begin.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: tuple[str, list[Array]] = ("", [])
        self._copies: dict[bool, list[list[Any]]] = {}

    def run(self, request: Request) -> dict[str, Any]:
        """Run a request.

        Returns:
            ``seconds``: for each library its samples, each the mean of one call.
        """
        arguments = self._arguments(request.arguments)
        functions = [self._function(library) for library in request.libraries]
        if request.outputs is not None:
            self._write_outputs(functions[0], arguments, self._folder / request.outputs)
        copies = self._copies_of(arguments, request.is_cold)
        calls = [_calls(function, copies) for function in functions] if request.rounds else []
        seconds: list[list[float]] = [[] for _ in functions]
        for _ in range(request.rounds):
            for function, count, samples in zip(functions, calls, seconds, strict=True):
                samples.append(_sample(function, copies, count))
        return {"seconds": seconds}

    def _arguments(self, name: str) -> list[Array]:
        if self._kept[0] != name:
            self._copies.clear()
            self._kept = (name, read_arguments(self._folder / name))
        return self._kept[1]

    def _copies_of(self, arguments: Sequence[Array], is_cold: bool) -> list[list[Any]]:
        if is_cold not in self._copies:
            self._copies[is_cold] = _copies(arguments, _COLD_BYTES if is_cold else 0)
        return self._copies[is_cold]

    def _function(self, library: str) -> Callable[..., None]:
        found: Callable[..., None] = tvm_ffi.load_module(os.fspath(self._folder / library))[
            FUNCTION
        ]
        return found

    def _write_outputs(
        self, function: Callable[..., None], arguments: Sequence[Array], place: Path
    ) -> None:
        arrays = _copied(arguments)
        function(*_tensors(arrays))
        save_arguments(place, arrays)


def save_arguments(path: Path, arrays: Sequence[Array]) -> None:
    """Write arguments to an npz file, as requests name them."""
    named: dict[str, Any] = {f"arg_{place}": array for place, array in enumerate(arrays)}
    np.savez(path, **named)


def read_arguments(path: Path) -> list[Array]:
    """Read arguments from an npz file.

    Raises:
        ValueError: It is no such file, or too large.
    """
    if path.stat().st_size > _MOST_ARGUMENT_BYTES:
        raise ValueError(f"{path.name} is larger than {_MOST_ARGUMENT_BYTES} bytes")
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[f"arg_{place}"] for place in range(len(file.files))]
    except (KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} holds no arguments: {error}") from None


def _tensors(arrays: Sequence[Array]) -> list[Any]:
    return [tvm_ffi.from_dlpack(array) for array in arrays]


def _copied(arrays: Sequence[Array]) -> list[Array]:
    """Copy arrays to where compiled code may read and write."""
    copies = [aligned_empty(array.shape, array.dtype) for array in arrays]
    for copy, array in zip(copies, arrays, strict=True):
        copy[...] = array
    return copies


def _copies(arguments: Sequence[Array], total: int) -> list[list[Any]]:
    """Return tensors of as many copies as make up `total` bytes, at least one."""
    nbytes = sum(array.nbytes for array in arguments)
    free = available_memory_bytes() or 1 << 30
    wanted = min(total, int(_MOST_SHARE_OF_MEMORY * free))
    count = max(1, min(-(-wanted // max(nbytes, 1)), _MOST_COPIES))
    return [_tensors(_copied(arguments)) for _ in range(count)]


def _calls(function: Callable[..., None], copies: Sequence[list[Any]]) -> int:
    """Return how many calls a sample takes, after some that do not count."""
    function(*copies[0])
    begin = time.perf_counter()
    for tensors in copies[:8]:
        function(*tensors)
    each = (time.perf_counter() - begin) / len(copies[:8])
    calls = math.ceil(_LEAST_SECONDS / max(each, 1e-7))
    # All copies take their turn, or else those that did not would be what the next sample finds.
    turns = math.ceil(min(calls, _MOST_CALLS) / len(copies))
    return turns * len(copies)


def _sample(function: Callable[..., None], copies: Sequence[list[Any]], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls // len(copies)):
        for tensors in copies:
            function(*tensors)
    return (time.perf_counter() - begin) / calls
