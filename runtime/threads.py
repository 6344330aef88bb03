"""The threads that kernels run on: how many, on which cores, and how they wait."""

from __future__ import annotations

import math
import os
from itertools import cycle, islice
from pathlib import Path

from mvlm.runtime.errors import UsageError
from mvlm.runtime.ffi import global_function
from mvlm.runtime.machine.control_groups import cpu_quota

# More than the cores of any machine that kernels are compiled for; each thread takes a stack.
MAX_THREADS = 1024

_SYSFS = Path("/sys/devices/system/cpu")
# Of the fastest core's capacity: below it a core holds the others up with the last stretch of a
# loop that it takes. An A78 has about 0.8 of an X1's, an A55 a quarter.
_MIN_CAPACITY = 0.5
_SHARE_CORES = -3  # every thread may run on every core of a list
# How often an idle thread yields before it sleeps. Where another program shares the cores, yielding
# hands it a whole slice of time each time a kernel ends; a sleeper is woken ahead of it.
_SPIN_VARIABLE, _NO_SPINNING = "TVM_THREAD_POOL_SPIN_COUNT", "0"


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


def disable_spinning() -> None:
    """Have idle threads sleep instead of spin, unless the environment says otherwise.

    To be called before the runtime is loaded: it reads the environment once.
    """
    os.environ.setdefault(_SPIN_VARIABLE, _NO_SPINNING)


def start_threads(threads: int) -> None:
    """Set the loaded runtime's pool up, and keep the calling thread where it was allowed to run.

    The pool is never larger than the list of cores is long, and without a list no larger than the
    environment or half of the machine's logical cores. It binds its caller to those cores as well,
    which would hold for whatever the program does next, and for its children.
    """
    allowed, fast = os.sched_getaffinity(0), fast_cores()
    usable = fast if threads <= len(fast) else sorted(allowed)
    cores = islice(cycle(usable), max(threads, len(usable)))
    configure = global_function("runtime.config_threadpool")
    configure(_SHARE_CORES, threads, [str(core) for core in cores])
    os.sched_setaffinity(0, allowed)
