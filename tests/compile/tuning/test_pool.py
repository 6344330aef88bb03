"""Devices that join, fail and leave: every job is done or fails in time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mvlm.compile.tuning.devices import DevicePool, JobFailedError, NoDeviceError
from mvlm.compile.tuning.devices.process import DeviceFailedError, check_samples
from mvlm.runtime.measurement.kernel_runner import MeasureRequest

FAKE = Path(__file__).with_name("fake_device.py")


@dataclass
class Fakes:
    """Fake devices, of which some have a fault."""

    folder: Path
    count: int = 3
    notes: list[str] = field(default_factory=list)

    def addresses(self) -> list[str]:
        return [f"device-{number}" for number in range(1, self.count + 1)]

    def command(self) -> list[str]:
        return [sys.executable, str(FAKE), str(self.folder)]


@pytest.fixture
def fakes(tmp_path: Path) -> Callable[..., Fakes]:
    def make(count: int, *faults: str) -> Fakes:
        for name in ("connections", "faults"):
            (tmp_path / name).mkdir()
        for fault in faults:
            (tmp_path / "faults" / fault).touch()
        return Fakes(tmp_path, count)

    return make


def pool_of(fakes: Fakes, idle_timeout: float = 20.0, **options: object) -> DevicePool:
    return DevicePool(fakes, note=fakes.notes.append, idle_timeout=idle_timeout, **options)  # type: ignore[arg-type]


def job(name: str = "a.so") -> MeasureRequest:
    return MeasureRequest("a.npz", (name,), 2, flush_cache=False)


@pytest.mark.parametrize("fault", ["die", "hang", "invalid", "not-json"])
def test_work_goes_to_another_device(fakes: Callable[..., Fakes], fault: str) -> None:
    three = fakes(3, f"2-{fault}")
    with pool_of(three) as pool:
        results = [pool.submit(job(), timeout=2) for _ in range(30)]
        assert all(result.result(30) == [[0.5, 0.5]] for result in results)
        if fault == "invalid":
            assert "invalid times" in pool.retired["device-2"]
        else:
            assert any("device-2" in note for note in three.notes)


def test_all_die_but_one(fakes: Callable[..., Fakes]) -> None:
    three = fakes(3, "1-die", "3-die")
    with pool_of(three) as pool:
        results = [pool.submit(job(), timeout=5) for _ in range(20)]
        assert all(result.result(30) == [[0.5, 0.5]] for result in results)


def test_a_device_that_joins_later_is_used(fakes: Callable[..., Fakes]) -> None:
    late = fakes(0)
    with pool_of(late) as pool:
        result = pool.submit(job(), timeout=5)
        time.sleep(0.5)
        assert not result.done()
        late.count = 1
        assert result.result(30) == [[0.5, 0.5]]


def test_a_kernel_that_cannot_be_run_is_no_fault_of_the_device(fakes: Callable[..., Fakes]) -> None:
    one = fakes(1)
    with pool_of(one) as pool:
        with pytest.raises(JobFailedError, match="no function main"):
            pool.submit(job("wrong.so"), timeout=5).result(30)
        assert pool.submit(job(), timeout=5).result(30)
        assert not pool.retired


def test_a_kernel_that_ends_every_device_is_given_up(fakes: Callable[..., Fakes]) -> None:
    two = fakes(2)
    with pool_of(two) as pool:
        fatal = pool.submit(job("fatal.so"), timeout=5)
        others = [pool.submit(job(), timeout=5) for _ in range(10)]
        with pytest.raises(JobFailedError, match="ended"):
            fatal.result(30)
        assert all(other.result(30) for other in others)


def test_without_any_device_it_ends_with_the_reason(fakes: Callable[..., Fakes]) -> None:
    none = fakes(1, "1-mute", "2-mute", "3-mute", "4-mute")
    with pool_of(none, idle_timeout=1.0, connect_timeout=0.5) as pool:
        with pytest.raises(NoDeviceError, match=r"no answer within 0.5 s"):
            pool.submit(job(), timeout=5).result(30)
        with pytest.raises(NoDeviceError, match="What has been measured is kept"):
            pool.wait_until_ready()


def test_devices_of_another_kind_are_refused(fakes: Callable[..., Fakes]) -> None:
    with pool_of(fakes(1), idle_timeout=1.0, mismatch=lambda _: "is a toaster") as pool:
        with pytest.raises(NoDeviceError, match="is a toaster"):
            pool.wait_until_ready()
        assert pool.retired == {"device-1": "is a toaster"}


def test_closing_does_not_wait_for_a_hung_device(fakes: Callable[..., Fakes]) -> None:
    pool = pool_of(fakes(1, "1-hang"))
    pool.submit(job(), timeout=100).result(30)
    pool.submit(job(), timeout=100)
    time.sleep(0.2)
    pool.close()
    # What waits for the device would wait for a minute.
    assert not [thread for thread in (pool._watcher, *pool._threads) if thread.is_alive()]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"seconds": None},
        {"seconds": [[1.0]]},
        {"seconds": [[1.0, float("nan")]]},
        {"seconds": [[1.0, 0.0]]},
        {"seconds": [[1.0, True]]},
        {"seconds": [[1.0, 1e9]]},
        {"seconds": [[1.0, "2"]]},
        {"seconds": [[1.0, 2.0], [1.0, 2.0]]},
    ],
)
def test_invalid_times(answer: dict[str, object]) -> None:
    with pytest.raises(DeviceFailedError, match="invalid times"):
        check_samples(answer, libraries=1, repeat=2)
