"""A calibration that several processes need is done once, and one that ends early is resumed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mvlm.compile import work_folder
from mvlm.compile.calibration import find
from mvlm.compile.calibration.calibrate import Calibration
from mvlm.compile.calibration.find import find_or_calibrate
from mvlm.compile.calibration.rounded_weights import REPORT, RoundedMatrices, RoundedWeights
from mvlm.compile.calibration_data.data import DrawSettings
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.job import CompileJob, plan_job
from mvlm.runtime.errors import TargetError, UsageError
from tests.cli.command_line import finish, start
from tests.reference import write_random_checkpoint

SMALL = CalibrationRequest(draw=DrawSettings(tokens=2048, length=128))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers that reads text; its head is its embedding table as well."""
    folder = tmp_path_factory.mktemp("small") / "model"
    return write_random_checkpoint(folder, "text", seed=0, tie_word_embeddings=True)


@pytest.fixture
def job(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompileJob:
    """A job to calibrate, with a cache of its own."""
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path / "cache"))
    return plan_job(checkpoint, calibration=SMALL)


class FakeCalibration:
    """Takes a while, and finishes without rounding anything."""

    count = 0
    running = threading.Event()

    def __init__(self, job: object, data: object, output: RoundedWeights, progress: object) -> None:
        self.output = output

    def run(self) -> dict[str, tuple[()]]:
        FakeCalibration.count += 1
        FakeCalibration.running.set()
        time.sleep(1)
        self.output.finish({})
        return {}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeCalibration]:
    monkeypatch.setattr(find, "Calibration", FakeCalibration)
    monkeypatch.setattr(FakeCalibration, "count", 0)
    FakeCalibration.running.clear()
    return FakeCalibration


def folder_of(job: CompileJob, tmp_path: Path) -> Path:
    return tmp_path / "cache" / "calibrations" / job.calibration_key()[:16]


def test_the_second_waits_for_the_first(job: CompileJob, fake: type[FakeCalibration]) -> None:
    first = threading.Thread(target=find_or_calibrate, args=(job,))
    first.start()
    assert fake.running.wait(30)
    steps: list[str] = []
    found = find_or_calibrate(job, lambda step, done, total: steps.append(step))
    first.join()
    assert found.reports() == {} and fake.count == 1
    assert set(steps) == {"calibrate: waiting for another process"}


def test_waiting_can_be_interrupted(
    job: CompileJob, fake: type[FakeCalibration], tmp_path: Path
) -> None:
    folder = folder_of(job, tmp_path)
    folder.mkdir(parents=True)

    def interrupt(step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KeyboardInterrupt):
            find_or_calibrate(job, interrupt)
    assert fake.count == 0
    find_or_calibrate(job, interrupt)  # the holder is gone
    assert fake.count == 1


def test_lock_is_released_when_its_holder_is_killed(
    job: CompileJob, fake: type[FakeCalibration], tmp_path: Path
) -> None:
    folder = folder_of(job, tmp_path)
    folder.mkdir(parents=True)
    program = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w');"
        "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(300)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, folder / "lock"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline()
    steps: list[str] = []

    def kill(step: str, done: int, total: int) -> None:
        steps.append(step)
        holder.kill()

    find_or_calibrate(job, kill)
    holder.communicate()
    assert fake.count == 1 and steps


def test_file_systems_without_locks(
    job: CompileJob, fake: type[FakeCalibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(work_folder.fcntl, "flock", no_locks)
    find_or_calibrate(job)
    assert fake.count == 1


def test_cache_folder_that_cannot_be_used(
    job: CompileJob, fake: type[FakeCalibration], tmp_path: Path
) -> None:
    lock = folder_of(job, tmp_path) / "lock"
    lock.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"the cache folder .* cannot be used.*MVLM_CACHE"):
        find_or_calibrate(job)
    assert fake.count == 0


def test_too_little_memory(
    job: CompileJob, fake: type[FakeCalibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvlm.compile.memory.available_memory_bytes", lambda: 10**8)
    with pytest.raises(TargetError, match=r"too little memory to calibrate this model.*0\.1 GB"):
        find_or_calibrate(job)
    assert fake.count == 0


def test_targets_of_all_layouts_take_one_calibration(
    job: CompileJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted calibration is resumed by another target's job."""
    portable = plan_job(job.checkpoint, target="portable", calibration=SMALL)
    assert portable.layout != job.layout and portable.calibration_key() == job.calibration_key()
    steps: list[int] = []

    def interrupt(step: str, done: int, total: int) -> None:
        steps.append(total)
        if len(steps) > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_calibrate(portable, interrupt)
    folder = folder_of(job, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert kept and not (folder / REPORT).exists()
    found = find_or_calibrate(job)
    assert found.reports() and all(path.stat().st_mtime_ns == at for path, at in kept.items())
    monkeypatch.setattr(find, "Calibration", None)
    assert find_or_calibrate(replace(portable)).folder == folder
    assert RoundedMatrices(found).find("decoder.lm_head") is not None
    # The matrices are those of a calibration that nothing interrupted.
    data = job.calibration_data
    assert data is not None
    (tmp_path / "whole").mkdir()
    whole = RoundedWeights(tmp_path / "whole", found.key)
    Calibration(job, data, whole).run()
    for path in folder.glob("*.safetensors"):
        assert path.read_bytes() == (whole.folder / path.name).read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_no_temporary_folder(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    """They come while the parts are compiled, when a folder is there."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    process = start("calibrate", checkpoint, "--calibration-tokens", "2048")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "temporary").glob("mvlm-calibration-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, number)
    result = finish(process)
    assert result.exit_code in (code, -number), result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
