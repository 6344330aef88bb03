"""The threads that kernels run on: how many, and on which cores."""

from __future__ import annotations

import math
import os
from pathlib import Path

from mvlm.runtime.errors import UsageError
from mvlm.runtime.machine.limits import cpu_quota

# More than the cores of any machine that kernels are compiled for; each thread takes a stack.
MAX_THREADS = 1024

_SYSFS = Path("/sys/devices/system/cpu")
# Of the fastest core's capacity: below it a core holds the others up with the last stretch of a
# loop that it takes. An A78 has about 0.8 of an X1's, an A55 a quarter.
_MIN_CAPACITY = 0.5


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
