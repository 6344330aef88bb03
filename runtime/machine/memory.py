"""Memory: what this process may still take, and what it has taken."""

from __future__ import annotations

import resource
from pathlib import Path

from mvlm.runtime.machine.control_groups import memory_left

_PROC = Path("/proc")


def available_memory_bytes(proc: Path = _PROC) -> int | None:
    """Return the memory that this process may still take, or None where nothing says so.

    The least of what the system could free and what is left of a container's limits.
    """
    found = [_system_bytes(proc / "meminfo"), memory_left(proc / "self")]
    return min((each for each in found if each is not None), default=None)


def _system_bytes(meminfo: Path) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def peak_rss_bytes() -> int:
    """Return the largest resident memory that this process has had, in bytes.

    Not rusage's ``ru_maxrss``, which a child inherits from its parent.
    """
    try:
        status = (_PROC / "self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
