from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvlm.bench import machine_load
from mvlm.bench.machine_load import MAX_OTHERS, MAX_STOLEN, NO_LOAD, Load, LoadMeter

TICKS = os.sysconf("SC_CLK_TCK")


class Kernel:
    """A /proc of our own, and a clock."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now = folder, 0.0
        monkeypatch.setattr(machine_load.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(machine_load.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(machine_load.time, "sleep", self.sleep)
        self.used = {os.getpid(): 0.0}
        self.spinning: list[int] = []
        self.tell(0, 0, 0)

    def tell(self, busy: float, stolen: float, elsewhere: float) -> None:
        """Seconds of CPU time on cores 0 and 1, stolen from them, and on core 2."""
        lines = ["cpu  9 9 9 9 9 9 9 9 9 9"]
        for core, seconds in enumerate((busy / 2, busy / 2, elsewhere)):
            user = round(seconds * TICKS)
            lines.append(f"cpu{core} {user} 0 0 777 0 0 0 {round(stolen / 2 * TICKS)} 0 0")
        (self.folder / "stat").write_text("\n".join(lines) + "\nintr 5\n")
        self.write()

    def write(self) -> None:
        for pid, seconds in self.used.items():
            (self.folder / str(pid)).mkdir(exist_ok=True)
            fields = ["R", *["0"] * 10, "0", "0", str(round(seconds * TICKS)), "0", "0"]
            line = f"{pid} (a (strange) name) {' '.join(fields)}"
            (self.folder / str(pid) / "stat").write_text(line)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for pid in self.spinning:
            self.used[pid] += seconds
        if self.now > 1:
            self.spinning = []
        self.write()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def test_own_cpu_time_does_not_count_as_load(kernel: Kernel) -> None:
    kernel.used[5] = 0.0
    kernel.write()
    meter = LoadMeter({0, 1}, lambda: [5, 6], kernel.folder)
    kernel.now = 10.0
    kernel.used |= {os.getpid(): 1.0, 5: 12.0}
    kernel.tell(busy=14.0, stolen=0.5, elsewhere=99.0)
    load = meter.load()
    assert (load.seconds, load.others, load.stolen) == (
        10.0,
        pytest.approx(0.1),
        pytest.approx(0.05),
    )
    meter.restart()
    assert meter.load() == NO_LOAD


def test_quiet_machine_limits() -> None:
    assert Load(1.0, MAX_OTHERS, MAX_STOLEN).is_quiet
    assert not Load(1.0, MAX_OTHERS + 0.01, 0).is_quiet
    assert not Load(1.0, 0, MAX_STOLEN + 0.01).is_quiet


def test_loads_are_averaged_by_duration() -> None:
    assert Load(1.0, 0.4, 0.0) + Load(3.0, 0.0, 0.2) == Load(
        4.0, pytest.approx(0.1), pytest.approx(0.15)
    )
    assert NO_LOAD + NO_LOAD == NO_LOAD


def test_settle_waits_for_spinning_threads(kernel: Kernel) -> None:
    kernel.used[5] = 0.0
    kernel.spinning = [5]
    LoadMeter({0}, lambda: [5], kernel.folder).settle()
    assert 1.0 < kernel.now < 1.5


def test_settle_has_a_limit(kernel: Kernel) -> None:
    kernel.used[5] = 0.0
    kernel.spinning = [5]
    LoadMeter({0}, lambda: [5], kernel.folder).settle(patience=0.5)
    assert 0.5 <= kernel.now < 0.8


def test_load_of_the_real_kernel() -> None:
    meter = LoadMeter(os.sched_getaffinity(0))
    sum(range(3_000_000))
    load = meter.load()
    assert load.seconds > 0 and load.others >= 0
