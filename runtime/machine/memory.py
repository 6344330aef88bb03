"""Memory: what this process may still take, and what it has taken."""

from __future__ import annotations

import resource
from pathlib import Path


def available_memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the memory that this process may still take, or None where nothing says so.

    The least of what the system could free and what is left of a container's limit.
    """
    found = []
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        limit, used = (int((cgroup / f"memory.{key}").read_text()) for key in ("max", "current"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Files that are kept in memory make room when it is asked for.
        found.append(max(limit - used + int(stat["file"]), 0))
    except (OSError, KeyError, ValueError):  # no limit reads as "max"
        pass
    return min(found, default=None)


def peak_rss_bytes() -> int:
    """Return the largest resident memory that this process has had, in bytes.

    Not rusage's ``ru_maxrss``, which a child inherits from its parent.
    """
    try:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
