"""Which cores kernels run on, and how idle threads wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvlm.runtime.threads import fast_cores


def sysfs(folder: Path, capacities: dict[int, str]) -> Path:
    for core, capacity in capacities.items():
        (folder / f"cpu{core}").mkdir()
        (folder / f"cpu{core}" / "cpu_capacity").write_text(capacity)
    return folder


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("eight_cores")
def test_slow_cores_are_left_out(tmp_path: Path) -> None:
    """As a Snapdragon 888 tells it: four A55, three A78, an X1."""
    told = {**dict.fromkeys(range(4), "250\n"), **dict.fromkeys(range(4, 7), "800\n"), 7: "1024\n"}
    assert fast_cores(sysfs(tmp_path, told)) == (4, 5, 6, 7)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("told", [{}, dict.fromkeys(range(8), "1024"), {0: "fast", 1: ""}])
def test_equal_cores_are_all_used(tmp_path: Path, told: dict[int, str]) -> None:
    assert fast_cores(sysfs(tmp_path, told)) == tuple(range(8))


def test_fast_cores_are_within_the_affinity_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5})
    told = sysfs(tmp_path, {2: "250", 5: "250", 7: "1024"})
    assert fast_cores(told) == (2, 5)
