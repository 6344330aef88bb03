"""Measures how long each kernel of each function takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# What the virtual machine does itself: allocating, checking shapes, computing extents.
_OWN_PREFIXES = ("vm.builtin.", "shape_func")
OVERHEAD = "(virtual machine)"


@dataclass(frozen=True)
class KernelTime:
    """The time of a kernel in all calls of a function.

    Attributes:
        kernel: Its name; `OVERHEAD` for what is none.
        calls: How often it ran.
        seconds: Wall time.
    """

    kernel: str
    calls: int
    seconds: float


class Profiler:
    """Accumulates the times of kernels, by the function that called them.

    Args:
        clock: Seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._function = ""
        self._begin = 0.0
        self._times: dict[str, dict[str, tuple[int, float]]] = {}

    def enter(self, function: str) -> None:
        """Count the kernels that follow as this function's."""
        self._function = function

    def record(self, kernel: str, begins: bool) -> None:
        """Record that a kernel is about to run (`begins`), or has run."""
        now = self._clock()
        if begins:
            self._begin = now
            return
        name = OVERHEAD if kernel.startswith(_OWN_PREFIXES) else kernel
        times = self._times.setdefault(self._function, {})
        calls, seconds = times.get(name, (0, 0.0))
        times[name] = (calls + 1, seconds + now - self._begin)

    def clear(self) -> None:
        """Drop all times."""
        self._times.clear()

    def times(self) -> Mapping[str, tuple[KernelTime, ...]]:
        """Return each function's kernels, the longest first."""
        return {
            function: tuple(
                sorted(
                    (KernelTime(kernel, *time) for kernel, time in times.items()),
                    key=lambda time: -time.seconds,
                )
            )
            for function, times in self._times.items()
        }
