"""Files of control groups as the kernel shows them, in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path


def write_hierarchy(
    proc: Path,
    *lines: str,
    cgroup2: Path | None = None,
    cgroup1: dict[str, Path] | None = None,
    root: str = "/",
) -> Path:
    """Write /proc/self/cgroup and mountinfo; return the group of the first line, made as a folder.

    Args:
        proc: In the place of /proc.
        lines: Of /proc/self/cgroup.
        cgroup2: Where version 2 is mounted.
        cgroup1: Where each controller of version 1 is mounted.
        root: The part of the hierarchy that is mounted.
    """
    mounts = [f"31 23 0:28 / /sys rw - sysfs sysfs rw\n30 1 0:1 {root} /x rw\n"]
    for controllers, place in (cgroup1 or {}).items():
        mounts.append(f"32 31 0:29 {root} {place} rw,relatime - cgroup cgroup rw,{controllers}\n")
    if cgroup2:
        mounts.append(f"41 31 0:38 {root} {cgroup2} rw shared:1 - cgroup2 cgroup2 rw\n")
    process = proc / "self"
    process.mkdir(parents=True)
    (process / "cgroup").write_text("".join(f"{line}\n" for line in lines))
    (process / "mountinfo").write_text("".join(mounts))
    mounted = cgroup2 or next(iter((cgroup1 or {}).values()))
    group = mounted / lines[0].split(":", 2)[2].removeprefix(root).lstrip("/")
    group.mkdir(parents=True)
    return group


def write_memory(group: Path, *, most: str, current: int, cached: int = 0) -> None:
    """Write the memory files of version 2."""
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 1\nactive_file {cached}\ninactive_file 0\nfile 7\n")
