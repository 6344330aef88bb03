"""How a device is at a moment: clocks, governors, temperatures, power; what speeds depend on.

All of it is read from where Linux tells it, as far as a user may read there: an app on Android is
shown less than a shell. What is not told is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from mvlm.runtime.machine.limits import available_memory_bytes

_SYSFS = Path("/sys")
_CORE_FILES = {
    "governor": "cpufreq/scaling_governor",
    "khz": "cpufreq/scaling_cur_freq",
    "least_khz": "cpufreq/cpuinfo_min_freq",
    "most_khz": "cpufreq/cpuinfo_max_freq",
    "allowed_khz": "cpufreq/scaling_max_freq",
    "capacity": "cpu_capacity",
}
_POWER_FILES = ("type", "status", "capacity", "online")
# What a sensor of a working device can say, in degrees Celsius.
_COLDEST, _HOTTEST = -40.0, 150.0
_PATIENCE_SECONDS = 10


def read_state(sysfs: Path = _SYSFS) -> dict[str, Any]:
    """Return the device's state as plain JSON values."""
    return {
        "cores": _cores(sysfs / "devices/system/cpu"),
        "temperatures": _temperatures(sysfs / "class/thermal"),
        "power": _power(sysfs / "class/power_supply"),
        "power_mode": _jetson_mode(),
        "load": load_average(),
        "available_memory_bytes": available_memory_bytes(),
    }


def load_average() -> list[float] | None:
    """Return the system's load over 1, 5 and 15 minutes, or None where an app is not told."""
    try:
        return list(os.getloadavg())
    except OSError:
        return None


def _cores(folder: Path) -> list[dict[str, Any]]:
    places = [path for path in folder.glob("cpu*") if path.name[3:].isdecimal()]
    cores = []
    for path in sorted(places, key=lambda path: int(path.name[3:])):
        found = {name: _text(path / file) for name, file in _CORE_FILES.items()}
        known = {name: text for name, text in found.items() if text is not None}
        values = {name: int(text) if text.isdecimal() else text for name, text in known.items()}
        cores.append({"core": int(path.name[3:]), "governor": "unknown", **values})
    return cores


def _temperatures(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("thermal_zone*")):
        text = _text(path / "temp")
        if text is None or not re.fullmatch(r"-?\d{1,9}", text):
            continue
        number = float(text)
        # Thousandths of a degree, but whole ones with some drivers.
        degrees = number / 1000 if abs(number) > _HOTTEST else number
        if _COLDEST <= degrees <= _HOTTEST:
            found.append({"sensor": _text(path / "type") or path.name, "celsius": degrees})
    return found


def _power(folder: Path) -> list[dict[str, Any]]:
    return [
        {"supply": path.name}
        | {name: text for name in _POWER_FILES if (text := _text(path / name)) is not None}
        for path in sorted(folder.glob("*"))
    ]


def _jetson_mode() -> str | None:
    """Ask NVIDIA's tool for the power mode, on a Jetson."""
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q"], capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return " ".join(done.stdout.split())[:200] or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()[:200] or None
    except OSError:
        return None
