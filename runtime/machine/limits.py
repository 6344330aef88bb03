"""What this process may take of the machine, CPU time and memory, and what it has taken.

A container limits both by Linux control groups. A process is in one group of each hierarchy, and
every group above it limits it as well, so the least limit counts. Version 2 has one hierarchy for
all controllers, version 1 one for each; a system may have both. The files are those of the kernel's
documentation, admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")
# Of mountinfo (proc_pid_mountinfo(5)): the mounted folder's path within the file system, and where.
_ROOT, _MOUNT_POINT = 3, 4


def cpu_quota(proc: Path = _PROC / "self") -> float | None:
    """Return how many CPUs' time this process may take, or None where no group limits it."""
    quotas = [_ratio(*_words(folder / "cpu.max", 2)) for folder in _folders("", proc)]
    quotas += [
        _ratio(_number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us"))
        for folder in _folders("cpu", proc)
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_left(proc: Path = _PROC / "self") -> int | None:
    """Return the bytes that are left of the groups' memory limits, or None where there is none.

    Cached files count as free: the kernel drops them when memory is asked for.
    """
    left = [
        _left(folder, "memory.max", "memory.current", ("active_file", "inactive_file"))
        for folder in _folders("", proc)
    ]
    left += [
        _left(
            folder,
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
        )
        for folder in _folders("memory", proc)
    ]
    return min((each for each in left if each is not None), default=None)


def available_memory_bytes(proc: Path = _PROC) -> int | None:
    """Return the memory that this process may still take, or None where nothing says so.

    The least of what the system could free and what is left of a container's limits.
    """
    found = [_system_bytes(proc / "meminfo"), memory_left(proc / "self")]
    return min((each for each in found if each is not None), default=None)


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


def _system_bytes(meminfo: Path) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _folders(controller: str, proc: Path) -> Iterator[Path]:
    """Yield the folder of this process's group and of each group above it.

    Args:
        controller: Of version 1; empty for version 2's hierarchy.
        proc: The process's folder in /proc.
    """
    group = _group(controller, proc)
    mount = _mount(controller, proc)
    if group is None or mount is None:
        return
    root, point = mount
    # A container may see its group by the path outside of it, of which only a part is mounted.
    path = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
    yield point / path
    yield from (point / parent for parent in path.parents)


def _group(controller: str, proc: Path) -> PurePosixPath | None:
    """The path of this process's group: lines are ``number:controllers:path``."""
    for line in _lines(proc / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _mount(controller: str, proc: Path) -> tuple[PurePosixPath, Path] | None:
    """The mounted part of a hierarchy and where it is mounted."""
    for line in _lines(proc / "mountinfo"):
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(fields) <= _MOUNT_POINT or not kind:
            continue
        is_ours = (
            kind[0] == "cgroup" and controller in kind[-1].split(",")
            if controller
            else kind[0] == "cgroup2"
        )
        if is_ours:
            return PurePosixPath(fields[_ROOT]), Path(fields[_MOUNT_POINT])
    return None


def _left(folder: Path, most: str, used: str, cached: tuple[str, ...]) -> int | None:
    limit, taken = _number(folder / most), _number(folder / used)
    if limit is None or taken is None:  # no limit reads as "max"
        return None
    fields = dict(line.partition(" ")[::2] for line in _lines(folder / "memory.stat"))
    free = sum(int(fields[name]) for name in cached if fields.get(name, "").isdecimal())
    return max(limit - taken + free, 0)


def _ratio(quota: int | None, period: int | None) -> float | None:
    """A quota in CPUs; version 1 says -1 where there is none."""
    return quota / period if quota and period and quota > 0 and period > 0 else None


def _words(path: Path, count: int) -> list[int | None]:
    """The numbers of a file's first line; None for what is no number."""
    words = next(iter(_lines(path)), "").split()[:count]
    numbers = [int(word) if word.isdecimal() else None for word in words]
    return numbers + [None] * (count - len(numbers))


def _number(path: Path) -> int | None:
    return _words(path, 1)[0]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
