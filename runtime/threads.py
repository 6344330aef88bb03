"""The threads that kernels run on: how many, on which cores, and the pool of a compiled library.

The threads' code is in the library itself (`native/thread_pool.c`); TVM's own thread pool is never
started. It says there why.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import math
import os
import threading
from itertools import count
from pathlib import Path
from typing import Any

from mvlm.runtime.errors import UsageError
from mvlm.runtime.machine.limits import cpu_quota

# More than the cores of any machine that kernels are compiled for; each thread takes a stack.
MAX_THREADS = 1024

_SYSFS = Path("/sys/devices/system/cpu")
# Of the fastest core's capacity: below it a core holds the others up with the last stretch of a
# loop that it takes. An A78 has about 0.8 of an X1's, an A55 a quarter.
_MIN_CAPACITY = 0.5

# How long an idle worker watches for the next loop before it sleeps. Between two kernels of a
# decode step pass 1 to 10 microseconds, and waking a worker takes 30 to 60. A program that shares
# the core loses no more than this at the end of a step.
SPIN_VARIABLE, _SPIN_MICROSECONDS = "MVLM_SPIN_MICROSECONDS", 20
_MAX_SPIN_MICROSECONDS = 1_000_000
# Through this variable of a compiled library its kernels launch their loops; absent if none does.
_LAUNCH = "__TVMBackendParallelLaunch"
_ERROR_FUNCTIONS = ("TVMFFIErrorMoveFromRaised", "TVMFFIErrorSetRaised", "TVMFFIObjectDecRef")

_names = count(1)


def fast_cores(sysfs: Path = _SYSFS) -> tuple[int, ...]:
    """Return the cores that this process may run on, but for those that are much slower.

    Where cores differ (big.LITTLE), Linux tells the capacity of each, relative to the fastest.
    """
    allowed = sorted(os.sched_getaffinity(0))
    capacities = {core: _capacity(sysfs, core) for core in allowed}
    least = _MIN_CAPACITY * max(capacities.values())
    return tuple(core for core in allowed if capacities[core] >= least)


def _capacity(sysfs: Path, core: int) -> int:
    try:
        return int((sysfs / f"cpu{core}" / "cpu_capacity").read_text())
    except (OSError, ValueError):
        return 1  # where all are equal, nothing is told


def default_threads() -> int:
    """Return how many threads kernels run on unless told otherwise.

    One for each fast core, but no more than a container's quota of CPU time keeps busy: threads
    beyond it only make the others wait at the end of each loop.
    """
    quota = cpu_quota()
    cores = len(fast_cores())
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def check_threads(threads: int) -> None:
    """Refuse a number of threads that is no sensible one.

    Raises:
        UsageError: It is less than 1 or more than :data:`MAX_THREADS`.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError("threads", expected=f"1 to {MAX_THREADS}", found=threads)


class ThreadPool:
    """The threads of a loaded library.

    Each thread may run on every fast core. The thread that calls the library's functions computes
    as well, and runs where it did before. Two pools of one library: the later one serves both.

    Args:
        path: The library, which tvm_ffi has loaded.
        threads: Threads that its loops run on, 1 to `MAX_THREADS`.

    Raises:
        UsageError: The environment's time to spin is not a number in range.
    """

    def __init__(self, path: Path, threads: int) -> None:
        spin_ns = 1000 * _spin_microseconds()
        self._library = ctypes.CDLL(os.fspath(path))  # the one that is loaded, once more
        self._workers: list[threading.Thread] = []
        self._is_closed = False
        try:
            launch = ctypes.c_void_p.in_dll(self._library, _LAUNCH)
        except ValueError:
            return
        launch.value = _address(self._library.mvlm_thread_pool_launch)
        process = ctypes.CDLL(None)  # tvm_ffi's library is global in it
        errors = [ctypes.c_void_p(_address(process[name])) for name in _ERROR_FUNCTIONS]
        start = self._library.mvlm_thread_pool_start
        start.restype = ctypes.c_uint32
        number = start(ctypes.c_int32(threads), ctypes.c_int64(spin_ns), *errors)
        self._number = ctypes.c_uint32(number)
        cores = _cores(threads)
        with contextlib.suppress(RuntimeError):  # the system has no more: the others do its work
            for _ in range(threads - 1):
                self._start_worker(cores)

    def close(self) -> None:
        """End the threads; the library's functions then compute on the calling one."""
        if self._is_closed:  # a second dlclose would be another holder's
            return
        self._is_closed = True
        if self._workers:
            self._library.mvlm_thread_pool_stop(self._number)
            for worker in self._workers:
                worker.join()
        _ctypes.dlclose(self._library._handle)  # its code stayed for as long as a thread was in it

    def _start_worker(self, cores: frozenset[int]) -> None:
        library, number = self._library, self._number

        def work() -> None:
            os.sched_setaffinity(0, cores)  # of this thread alone
            library.mvlm_thread_pool_work(number)

        # It waits in C without the interpreter's lock, and does not keep the process from ending.
        worker = threading.Thread(target=work, name=f"mvlm-worker-{next(_names)}", daemon=True)
        worker.start()
        self._workers.append(worker)


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def _cores(threads: int) -> frozenset[int]:
    """Return the cores to run on: the fast ones, unless there are too few for the threads."""
    fast = fast_cores()
    return frozenset(fast if threads <= len(fast) else os.sched_getaffinity(0))


def _spin_microseconds() -> int:
    text = os.environ.get(SPIN_VARIABLE) or str(_SPIN_MICROSECONDS)
    # Bounded, because int() refuses thousands of digits by an error of its own.
    is_number = text.isdecimal() and len(text) <= len(str(_MAX_SPIN_MICROSECONDS))
    if not is_number or int(text) > _MAX_SPIN_MICROSECONDS:
        raise UsageError(
            f"${SPIN_VARIABLE}",
            expected=f"microseconds, 0 to {_MAX_SPIN_MICROSECONDS}",
            found=repr(text[:40]),
        )
    return int(text)
