"""A device's state, as different systems tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvlm.runtime.machine.state import load_average, read_state


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_phone(tmp_path: Path) -> None:
    cpu = "devices/system/cpu"
    state = read_state(
        write(
            tmp_path,
            {
                f"{cpu}/cpu7/cpufreq/scaling_governor": "schedutil\n",
                f"{cpu}/cpu7/cpufreq/scaling_cur_freq": "2841600\n",
                f"{cpu}/cpu7/cpu_capacity": "1024\n",
                f"{cpu}/cpu0/cpufreq/scaling_governor": "schedutil\n",
                f"{cpu}/cpufreq/policy0/x": "",
                f"{cpu}/cpuidle/x": "",
                "class/thermal/thermal_zone0/type": "cpu-1-0\n",
                "class/thermal/thermal_zone0/temp": "45500\n",
                "class/thermal/thermal_zone1/temp": "38\n",
                "class/thermal/thermal_zone2/temp": "-274000\n",
                "class/thermal/thermal_zone3/temp": "error\n",
                "class/power_supply/battery/status": "Discharging\n",
                "class/power_supply/battery/capacity": "81\n",
            },
        )
    )
    assert state["cores"] == [
        {"core": 0, "governor": "schedutil"},
        {"core": 7, "governor": "schedutil", "khz": 2841600, "capacity": 1024},
    ]
    assert state["temperatures"] == [
        {"sensor": "cpu-1-0", "celsius": 45.5},
        {"sensor": "thermal_zone1", "celsius": 38.0},
    ]
    assert state["power"] == [{"supply": "battery", "status": "Discharging", "capacity": "81"}]


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    state = read_state(tmp_path)
    assert (state["cores"], state["temperatures"], state["power"]) == ([], [], [])


def test_this_machine() -> None:
    state = read_state()
    assert len(state["cores"]) >= len(os.sched_getaffinity(0))
    assert all(core["governor"] for core in state["cores"])


def test_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'; echo 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert read_state(tmp_path)["power_mode"] == "NV Power Mode: MAXN 0"


def test_an_app_is_not_told_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise PermissionError

    monkeypatch.setattr(os, "getloadavg", refused)
    assert load_average() is None
