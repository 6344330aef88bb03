"""Whether the machine is quiet: CPU time that neither we nor our children used.

Speeds that are measured under other load say little, and another tool's may suffer more from it
than ours. So what the kernel counts as busy, less what it counts as ours, is taken over the very
seconds that are measured. Other users of the memory's bandwidth on the same host do not show here;
the bandwidth itself is measured for that (`bandwidth`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

# Cores' worth of CPU time. An idle Linux with its daemons takes a hundredth; a tenth already moves
# a median of two threads by some percent.
MAX_OTHERS = 0.10
MAX_STOLEN = 0.03

# Long enough for a tick of a thread that spins to show.
_SETTLING_STEP = 0.1
_SETTLING_SECONDS = 5.0

# Fields of a cpu line of /proc/stat, after its name; a guest's time is in the first two already.
_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq
_STEAL = 7
# Fields of /proc/PID/stat behind the command's name: utime, stime, and those of reaped children.
_OWN = slice(11, 15)


@dataclass(frozen=True)
class Load:
    """What others did in some seconds.

    Attributes:
        seconds: Over which it was counted.
        others: Cores that other processes kept busy, on average.
        stolen: Cores that a hypervisor kept from this machine, on average.
    """

    seconds: float
    others: float
    stolen: float

    def __add__(self, other: Load) -> Load:
        seconds = self.seconds + other.seconds
        if not seconds:
            return self

        def mean(left: float, right: float) -> float:
            return (left * self.seconds + right * other.seconds) / seconds

        return Load(seconds, mean(self.others, other.others), mean(self.stolen, other.stolen))

    @property
    def is_quiet(self) -> bool:
        """Whether speeds of these seconds can be judged."""
        return self.others <= MAX_OTHERS and self.stolen <= MAX_STOLEN


NO_LOAD = Load(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Counters:
    at: float
    busy: float
    stolen: float
    own: float


class LoadMeter:
    """Counts others' CPU time on some cores.

    Args:
        cores: The cores, by the system's numbers.
        children: Returns the processes that count as ours besides this one, alive; one that was
            waited for counts with its parent.
        proc: Where the kernel tells it.
    """

    def __init__(
        self,
        cores: Collection[int],
        children: Callable[[], Iterable[int]] = tuple,
        proc: Path = Path("/proc"),
    ) -> None:
        self._names = {f"cpu{core}" for core in cores}
        self._children = children
        self._proc = proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._since = self._read()

    def restart(self) -> None:
        """Count from now on."""
        self._since = self._read()

    def load(self) -> Load:
        """Return what others did since the last start; nothing where the kernel does not say."""
        since, now = self._since, self._read()
        seconds = now.at - since.at
        if seconds <= 0:
            return NO_LOAD
        others = (now.busy - since.busy) - (now.own - since.own)
        return Load(seconds, max(0.0, others) / seconds, (now.stolen - since.stolen) / seconds)

    def settle(self, patience: float = _SETTLING_SECONDS) -> None:
        """Wait until no child computes any more: threads of some spin on after their work."""
        end = time.monotonic() + patience
        before = -1
        while time.monotonic() < end:
            now = sum(map(self._used, self._children()))
            if now == before:
                return
            before = now
            time.sleep(_SETTLING_STEP)

    def _read(self) -> _Counters:
        own = [os.getpid(), *self._children()]
        busy = stolen = 0
        for line in (self._proc / "stat").read_text().splitlines():
            name, *fields = line.split()
            if name in self._names:
                busy += sum(int(fields[index]) for index in _BUSY)
                stolen += int(fields[_STEAL])
        used = sum(map(self._used, own))
        ticks = self._ticks
        return _Counters(time.perf_counter(), busy / ticks, stolen / ticks, used / ticks)

    def _used(self, pid: int) -> int:
        try:
            text = (self._proc / str(pid) / "stat").read_text()
        except OSError:  # it has ended, and its parent was told what it used
            return 0
        return sum(map(int, text.rpartition(")")[2].split()[_OWN]))
