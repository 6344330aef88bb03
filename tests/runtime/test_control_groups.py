"""Limits of control groups, told by files as the kernel writes them, and set on a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mvlm.runtime import threads
from mvlm.runtime.machine.limits import cpu_quota, memory_left
from mvlm.runtime.threads import default_threads
from tests.runtime.control_groups import write_hierarchy, write_memory


def test_without_groups(tmp_path: Path) -> None:
    assert (cpu_quota(tmp_path), memory_left(tmp_path)) == (None, None)


@pytest.mark.parametrize("text", ["", "nonsense", "::::\n\n", "0::\n", "1:cpu\n", "\0\xff"])
def test_files_that_say_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "self").mkdir()
    for name in ("cgroup", "mountinfo"):
        (tmp_path / "self" / name).write_text(text)
    assert (cpu_quota(tmp_path / "self"), memory_left(tmp_path / "self")) == (None, None)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000", None),
        ("150000 100000", 1.5),
        ("50000 100000", 0.5),
        ("0 100000", None),
        ("100000", None),
        ("100000 0", None),
    ],
)
def test_a_quota_of_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    group = write_hierarchy(tmp_path, "0::/a/b", cgroup2=tmp_path / "groups")
    (group / "cpu.max").write_text(f"{text}\n")
    assert cpu_quota(tmp_path / "self") == quota


def test_the_groups_above_limit_as_well(tmp_path: Path) -> None:
    group = write_hierarchy(tmp_path, "0::/pod/container", cgroup2=tmp_path / "groups")
    (group / "cpu.max").write_text("400000 100000\n")
    (group.parent / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "groups" / "cpu.max").write_text("max 100000\n")
    write_memory(group, most="max", current=10)
    write_memory(group.parent, most="5000", current=1000, cached=500)
    assert cpu_quota(tmp_path / "self") == 2
    assert memory_left(tmp_path / "self") == 4500


def test_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """As Docker shows version 1: the group's path is that of the host, a part of which is there."""
    group = write_hierarchy(
        tmp_path, "0::/docker/1f", cgroup2=tmp_path / "groups", root="/docker/1f"
    )
    assert group == tmp_path / "groups"
    (group / "cpu.max").write_text("100000 50000\n")
    assert cpu_quota(tmp_path / "self") == 2


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("250000", 2.5)])
def test_a_quota_of_version_1(
    tmp_path: Path, controllers: str, quota: str, expected: float | None
) -> None:
    lines = (f"4:{controllers}:/box", "3:cpuset:/", "0::/")
    group = write_hierarchy(tmp_path, *lines, cgroup1={controllers: tmp_path / "cpu"})
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path / "self") == expected


def test_a_memory_limit_of_version_1(tmp_path: Path) -> None:
    group = write_hierarchy(tmp_path, "4:memory:/box", cgroup1={"memory": tmp_path / "memory"})
    (group / "memory.limit_in_bytes").write_text("1000000\n")
    (group / "memory.usage_in_bytes").write_text("900000\n")
    stat = "cache 9\ntotal_active_file 20000\ntotal_inactive_file 30000\ntotal_rss 1\n"
    (group / "memory.stat").write_text(stat)
    assert memory_left(tmp_path / "self") == 150_000


def test_more_is_used_than_allowed(tmp_path: Path) -> None:
    group = write_hierarchy(tmp_path, "0::/a", cgroup2=tmp_path / "groups")
    write_memory(group, most="1000", current=1100)
    assert memory_left(tmp_path / "self") == 0


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "expected"), [(None, 8), (0.1, 1), (1.0, 1), (1.5, 2), (7.2, 8), (64.0, 8)]
)
def test_no_more_threads_than_the_quota_keeps_busy(
    quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "fast_cores", lambda: tuple(range(8)))
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert default_threads() == expected


# --- a real group -------------------------------------------------------------------------------

_PROGRAM = """
import os, sys
from pathlib import Path
for group in sys.argv[1:]:
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
from mvlm.runtime.machine.limits import cpu_quota, memory_left
from mvlm.runtime.threads import default_threads
left = memory_left()
print(cpu_quota(), default_threads(), left is not None and left <= 64 << 20)
"""


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """Groups of this machine's version 1 with half a CPU and 64 MiB."""
    name = f"mvlm-test-{os.getpid()}"
    limits = {
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        "memory": {"memory.limit_in_bytes": str(64 << 20)},
    }
    made = []
    try:
        for controller, files in limits.items():
            group = Path("/sys/fs/cgroup") / controller / name
            try:
                group.mkdir()
                made.append(group)
                for file, text in files.items():
                    (group / file).write_text(text)
            except OSError as error:
                pytest.skip(f"no control group can be made here: {error}")
        yield made
    finally:
        for group in made:
            with suppress(OSError):
                group.rmdir()


def test_a_process_in_a_real_group(groups: list[Path]) -> None:
    command = [sys.executable, "-c", _PROGRAM, *map(str, groups)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.5", "1", "True"]
