"""Loads an artifact's compiled functions through tvm_ffi, without the compiler.

The artifact carries the runtime libraries that it was compiled for: TVM's runtime, and those that
extend it. A process can hold one of each name only: their functions register by name, and a second
copy would abort. Where one is already there (the compiler's, in a process that has imported tvm) it
is used instead, the versions having been compared before.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mvlm.runtime.artifact.layout import MODEL_LIBRARY
from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.device.device import Device
from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.input_file import utf8_folder
from mvlm.runtime.threads import ThreadPool, check_threads

_POOLED_ALLOCATOR = 2
_GO_ON = 0  # an instrument's answer: make the call


class Functions:
    """The compiled functions of a loaded artifact.

    Args:
        machine: The virtual machine that runs them.
        pool: The threads that they compute on, which end with this object.
    """

    def __init__(self, machine: Any, pool: ThreadPool) -> None:
        self._machine = machine
        # At the process's end they end with it, whatever they do.
        weakref.finalize(self, pool.close).atexit = False

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """Return a function by its name."""
        found: Callable[..., Any] = self._machine[name]
        return found

    def __contains__(self, name: str) -> bool:
        """Return whether there is a function of this name."""
        has: bool = self._machine.implements_function(name)
        return has

    def set_instrument(self, record: Callable[[str, bool], None]) -> None:
        """Report every call that the functions make, for as long as they live.

        Args:
            record: Called with a kernel's name, and True before the call or False after it.
        """

        def instrument(_: Any, name: str, begins: bool, *__: Any) -> int:
            record(name, begins)
            return _GO_ON

        self._machine["set_instrument"](instrument)


def load_functions(
    folder: Path, runtime_libraries: Sequence[str], device: Device, threads: int
) -> Functions:
    """Load a verified artifact's libraries.

    Args:
        folder: The artifact; its files have been verified.
        runtime_libraries: Paths within it, in the order of loading: TVM's runtime first.
        device: Where the kernels run.
        threads: Threads that kernels run on, 1 to `MAX_THREADS`.

    Returns:
        The compiled functions.

    Raises:
        ArtifactError: The dynamic loader refuses a library.
        UsageError: The number of threads is out of range.
    """
    check_threads(threads)
    runtime, *extensions = runtime_libraries
    load_runtime(folder / runtime)
    for extension in extensions:
        _load_extension(folder / extension)
    try:
        with utf8_folder(folder) as place:
            library = tvm_ffi.load_module(place / MODEL_LIBRARY)
            pool = ThreadPool(place / MODEL_LIBRARY, threads)
    except (OSError, RuntimeError) as error:
        raise _unloadable(folder / MODEL_LIBRARY, error) from None
    machine = library["vm_load_executable"]()
    machine["vm_initialization"](*_device_numbers(device))
    return Functions(machine, pool)


def _device_numbers(device: Device) -> list[int]:
    """Return the virtual machine's devices: type, index and allocator of each.

    The CPU has to be the last of them: it computes shapes (`_setup_device` in TVM's
    ``tvm/runtime/vm.py``).
    """
    host = CpuDevice()
    devices = [device] if device.dlpack_type == host.dlpack_type else [device, host]
    return [
        number for each in devices for number in (each.dlpack_type, each.index, _POOLED_ALLOCATOR)
    ]


def load_runtime(path: Path) -> None:
    """Open the TVM runtime library, unless one is in this process already.

    Raises:
        ArtifactError: The dynamic loader refuses it.
    """
    if tvm_ffi.get_global_func("runtime.NumThreads", allow_missing=True) is not None:
        return
    _open(path)


def _load_extension(path: Path) -> None:
    """Open a library that extends the runtime, unless one of its name is in this process already.

    The name is its soname, which has to be its file's.
    """
    try:
        ctypes.CDLL(path.name, os.RTLD_NOLOAD)
    except OSError:
        _open(path)


def _open(path: Path) -> None:
    try:
        ctypes.CDLL(os.fspath(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise _unloadable(path, error) from None


def _unloadable(path: Path, error: Exception) -> ArtifactError:
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return ArtifactError(
            f"{path} cannot be loaded",
            expected="a file system from which code may be run",
            found="one that is mounted with `noexec`",
            fix="Move the artifact elsewhere; for one in the cache, set MVLM_CACHE to a folder "
            "elsewhere.",
        )
    return ArtifactError(
        f"{path} cannot be loaded",
        found=str(error).strip().splitlines()[-1][:200],
        fix="Compile the model again on this system.",
    )
