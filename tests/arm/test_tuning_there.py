"""Tuning on emulated devices over RPC: what it does, not how fast; its times are no Kryo's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tvm.rpc.tracker import Tracker

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.compile.tuning.devices import TrackerProvider
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.progress import Progress
from mvlm.compile.tuning.tuner import tune
from mvlm.compile.tuning_log import read_log
from mvlm.runtime.measurement.server import Address
from tests.arm.conftest import Compile
from tests.arm.emulator import environment, fetched_toolchain, require_emulator
from tests.arm.sysroot import FOLDER

KRYO = "snapdragon-888-cpu"


@contextlib.contextmanager
def devices(
    count: int, artifact: Path, tracker: Address
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Emulated devices, each with the one command that it takes."""
    command = [
        FOLDER / "mvlm",
        "device",
        "serve",
        artifact,
        "--tracker",
        str(tracker),
        "--key",
        "k",
    ]
    servers = [
        subprocess.Popen(
            command, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
        )
        for _ in range(count)
    ]
    try:
        yield servers
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class FaultInjector:
    """Kills one device and stops another, once candidates are being measured."""

    def __init__(self, servers: list[subprocess.Popen[bytes]]) -> None:
        self._servers, self._is_done = servers, False
        self.notes: list[str] = []

    def progress(self, progress: Progress) -> None:
        if progress.step == "search" and progress.done and not self._is_done:
            self._is_done = True
            os.killpg(self._servers[0].pid, signal.SIGKILL)
            os.killpg(self._servers[1].pid, signal.SIGSTOP)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.arm
def test_emulated_devices_over_rpc(compiled: Compile, tmp_path: Path) -> None:
    """One is killed and one hangs; the log is complete, and is never applied."""
    require_emulator()
    artifact = compiled(KRYO, "q4a8")
    running = Tracker("127.0.0.1", port=19390, port_end=19490, silent=True)
    tracker = Address("127.0.0.1", running.port)
    job = plan_job(BUNDLED, target=KRYO, logs=())
    plan = TuningOptions(
        24, tmp_path / "logs", timeout=30, functions=("quantize_rms", "linear_576")
    )
    try:
        with devices(3, artifact, tracker) as servers, fetched_toolchain():
            provider = TrackerProvider(tracker, "k")
            _wait(lambda: len(provider.addresses()) == 3)
            watcher = FaultInjector(servers)
            result = tune(job, plan, provider, watcher)
    finally:
        running.terminate()
    assert result.log.name == f"{KRYO}-emulated"
    log = read_log(result.log)
    (run,) = log.provenance.runs
    assert run.is_complete and result.trials >= 16
    assert log.provenance.is_emulated
    assert log.provenance.device["machine"]["architecture"] == "aarch64"
    errors = [each.error for each in log.provenance.results.values() if each.record is not None]
    assert all(error is not None and error <= 1 for error in errors)
    assert watcher.notes, "nothing was said of two devices that went away"
    warnings: list[str] = []
    with fetched_toolchain():
        manifest = compile_job(
            plan_job(BUNDLED, target=KRYO, logs=[result.log]),
            tmp_path / "artifact",
            warn=warnings.append,
        )
    assert manifest.provenance["tuning"]["tuned"] == 0
    assert any("an emulator's" in warning for warning in warnings)


def _wait(condition: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            pytest.fail("the emulated devices did not come")
        time.sleep(0.5)
