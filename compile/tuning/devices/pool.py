"""Devices that come and go, and the work that is shared between them.

Each device has a thread that connects to it, has it show that it computes what it should, and then
takes one job after the other. A device that dies or hangs is connected to again once it is back;
one that does not come back, that keeps failing, or that answers nonsense is retired. What it was
doing goes to another. A job that fails on three connections is at fault itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvlm.compile.tuning.devices.process import DeviceFailure, DeviceProcess, samples
from mvlm.compile.tuning.devices.sources import THIS_MACHINE, Source
from mvlm.runtime.device.measurement import Request, read_arguments
from mvlm.runtime.errors import MvlmError, TargetError

_CONNECT_SECONDS = 60.0
_LOOK_SECONDS = 5.0
# Attempts at a job, and failures of a device in a row: alone, or where others could do its work.
_ATTEMPTS, _FAILURES_ALONE, _FAILURES = 3, 12, 3


class JobFailedError(Exception):
    """A job cannot be run: the kernel fails, wherever it is."""


class NoDeviceError(MvlmError):
    """No device is left, and none has come."""


@dataclass(frozen=True)
class Probe:
    """What a device has to compute before it is trusted.

    Attributes:
        request: Runs it.
        error: Says how far off what it wrote is, in units of what is allowed.
    """

    request: Request
    error: Callable[[Mapping[int, Any]], float]


@dataclass
class _Job:
    request: Request
    timeout: float
    result: Future[list[list[float]]] = field(default_factory=Future)
    failed_at: list[str] = field(default_factory=list)


class DevicePool:
    """Shares jobs between devices.

    Args:
        source: Where devices come from.
        probe: What they have to compute first; nothing if None.
        refuse: Says of a device's description why it must not be used; None if it may.
        note: Called with what happens to devices, for people; from any thread.
        patience: Seconds to go on without any device.
        connect_timeout: Seconds until a device must be ready.
    """

    def __init__(
        self,
        source: Source,
        probe: Probe | None = None,
        refuse: Callable[[Mapping[str, Any]], str | None] = lambda description: None,
        note: Callable[[str], None] = lambda text: None,
        patience: float = 60.0,
        connect_timeout: float = _CONNECT_SECONDS,
    ) -> None:
        self._source, self._probe, self._refuse, self._note = source, probe, refuse, note
        self._patience, self._connect_timeout = patience, connect_timeout
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._ready: dict[str, Mapping[str, Any]] = {}
        self._known: set[str] = set()
        self._retired: dict[str, str] = {}
        self._reasons: list[str] = []
        self._processes: set[DeviceProcess] = set()
        self._closed = False
        self._last_ready = time.monotonic()
        if not source.addresses():
            self._note("no device is there yet")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def devices(self) -> dict[str, Mapping[str, Any]]:
        """Those that are at work, by their address, with what they say of themselves."""
        with self._change:
            return dict(self._ready)

    @property
    def retired(self) -> dict[str, str]:
        """Those that are not used any more, and why."""
        with self._change:
            return dict(self._retired)

    def wait_until_ready(self) -> Mapping[str, Any]:
        """Wait for a first device and return its description.

        Raises:
            NoDeviceError: None has come in time; says what became of those that tried.
        """
        with self._change:
            while not self._ready:
                if self._is_hopeless():
                    raise self._none_left()
                self._change.wait(1.0)
            return next(iter(self._ready.values()))

    def submit(self, request: Request, timeout: float) -> Future[list[list[float]]]:
        """Have a request run by whichever device is free.

        Args:
            request: What to run.
            timeout: Seconds that it may take.

        Returns:
            Its samples. The exceptions are JobFailedError and NoDeviceError.
        """
        job = _Job(request, timeout)
        with self._change:
            self._jobs.append(job)
            self._change.notify_all()
        return job.result

    def close(self) -> None:
        """Let all devices go, at once."""
        with self._change:
            self._closed = True
            processes = list(self._processes)
            self._change.notify_all()
        for process in processes:
            process.close()
        for thread in [self._watcher, *self._threads]:
            thread.join(10)

    def __enter__(self) -> DevicePool:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _watch(self) -> None:
        """Look for devices that come, and give up when there have been none for long."""
        while not self._closed:
            try:
                addresses = self._source.addresses()
            except TargetError as error:
                self._note(str(error))
                addresses = []
            with self._change:
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                wanted = sum(address not in self._retired for address in addresses)
                for _ in range(wanted - len(self._threads)):
                    thread = threading.Thread(target=self._work, daemon=True)
                    self._threads.append(thread)
                    thread.start()
                if self._is_hopeless():
                    for job in self._jobs:
                        job.result.set_exception(self._none_left())
                    self._jobs.clear()
                self._change.wait(min(_LOOK_SECONDS, self._patience))

    def _is_hopeless(self) -> bool:
        return not self._ready and time.monotonic() - self._last_ready > self._patience

    def _none_left(self) -> NoDeviceError:
        reasons = [f"{where} {why}" for where, why in self._retired.items()] + self._reasons
        return NoDeviceError(
            "no device is left to measure on",
            expected=f"one within {self._patience:g} s",
            found="; ".join(dict.fromkeys(reasons[-4:])) or "none",
            fix="What has been measured is kept: the same command goes on from there.",
        )

    def _work(self) -> None:
        """Keep one device at work until it is retired or we are done."""
        failures = 0
        while not self._closed:
            try:
                process = self._connect()
            except DeviceFailure as failure:
                with self._change:
                    self._reasons.append(str(failure))
                self._note(f"a device is not ready: {failure}")
                return  # the watcher tries again as long as the tracker names it
            address = process.address
            failures = self._work_on(process, address, failures)
            self._leave(process, address)
            others = len(self.devices)
            if failures >= (_FAILURES if others else _FAILURES_ALONE):
                self._retire(address, f"failed {failures} times in a row")
            if address in self.retired:
                return

    def _work_on(self, process: DeviceProcess, address: str, failures: int) -> int:
        """Give a device jobs until it fails; return how often in a row it has."""
        while True:
            job = self._next_job(address)
            if job is None:
                return failures
            try:
                answer = process.ask(job.request.to_json(), job.timeout)
                if "error" in answer:
                    job.result.set_exception(JobFailedError(str(answer["error"])))
                else:
                    job.result.set_result(
                        samples(answer, len(job.request.libraries), job.request.rounds)
                    )
                failures = 0
            except DeviceFailure as failure:
                if "nonsense" in str(failure):
                    self._retire(address, str(failure))
                elif not self._closed:
                    self._note(f"{address}: {failure}")
                self._give_back(job, address, str(failure))
                return failures + 1

    def _connect(self) -> DeviceProcess:
        process = DeviceProcess(self._source.command(), self._connect_timeout)
        with self._change:
            self._processes.add(process)
        address = process.address
        try:
            if address in self.retired:
                raise DeviceFailure(f"{address} is retired")
            reason = self._refuse(process.description)
            if reason is None and self._probe is not None:
                reason = self._fault(process, self._probe)
            if reason is not None:
                self._retire(address, reason)
                raise DeviceFailure(f"{address} {reason}")
        except DeviceFailure:
            self._forget(process)
            raise
        with self._change:
            is_new = address not in self._known
            self._known.add(address)
            self._ready[address] = process.description
            self._last_ready = time.monotonic()
            self._change.notify_all()
        if is_new and address != THIS_MACHINE:
            self._note(f"{address} is ready")
        return process

    def _fault(self, process: DeviceProcess, probe: Probe) -> str | None:
        """Return what is wrong with what a device computes."""
        assert probe.request.outputs is not None
        own = Path(f"{probe.request.outputs}.{threading.get_ident()}.npz")
        request = replace(probe.request, outputs=str(own))
        answer = process.ask(request.to_json(), self._connect_timeout)
        if "error" in answer:
            return f"cannot run a kernel: {str(answer['error'])[:200]}"
        samples(answer, len(request.libraries), request.rounds)
        try:
            found = dict(enumerate(read_arguments(own)))
        except (OSError, ValueError) as error:
            return f"sent results that cannot be read: {error}"
        finally:
            own.unlink(missing_ok=True)
        error_found = probe.error(found)
        return None if error_found <= 1 else "computes something else than it should"

    def _next_job(self, address: str) -> _Job | None:
        """Wait for a job that this device has not failed at, unless it is the only one."""
        with self._change:
            while not self._closed and address not in self._retired:
                alone = len(self._ready) == 1
                for job in self._jobs:
                    if alone or address not in job.failed_at:
                        self._jobs.remove(job)
                        return job
                self._change.wait(1.0)
        return None

    def _give_back(self, job: _Job, address: str, reason: str) -> None:
        with self._change:
            job.failed_at.append(address)
            if len(job.failed_at) >= _ATTEMPTS:
                job.result.set_exception(JobFailedError(reason))
            else:
                self._jobs.appendleft(job)
            self._change.notify_all()

    def _retire(self, address: str, reason: str) -> None:
        with self._change:
            self._retired[address] = reason
            self._change.notify_all()
        self._note(f"{address} is retired: {reason}")

    def _leave(self, process: DeviceProcess, address: str) -> None:
        with self._change:
            self._ready.pop(address, None)
            if not self._ready:
                self._last_ready = time.monotonic()
        self._forget(process)

    def _forget(self, process: DeviceProcess) -> None:
        process.close()
        with self._change:
            self._processes.discard(process)
