"""A pool of devices that may join and leave, and a queue of measurements for them.

A thread for each device connects to it, runs the self test, and then one job after the other. A
device that dies or hangs is reconnected; one that does not return, keeps failing, or sends invalid
times is retired. Its job is requeued. A job that fails on three connections fails for good.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvlm.compile.tuning.devices.process import DeviceFailedError, DeviceProcess, check_samples
from mvlm.compile.tuning.devices.providers import THIS_MACHINE, DeviceProvider
from mvlm.runtime.errors import MvlmError, TargetError
from mvlm.runtime.measurement.kernel_runner import MeasureRequest, read_arguments

_CONNECT_SECONDS = 60.0
_POLL_SECONDS = 5.0
# Attempts at a job; failures in a row until the only device, or one of several, is retired.
_ATTEMPTS, _FAILURES_ALONE, _FAILURES = 3, 12, 3


class JobFailedError(Exception):
    """A job fails on every device."""


class NoDeviceError(MvlmError):
    """No device is connected, and none has joined in time."""


@dataclass(frozen=True)
class SelfTest:
    """A kernel that a device has to compute correctly before it gets jobs.

    Attributes:
        request: Runs the kernel and returns its outputs.
        error: Takes the arguments after the call, in order, and returns the outputs' largest error
            in units of the tolerance.
    """

    request: MeasureRequest
    error: Callable[[Sequence[Any]], float]


@dataclass
class _Job:
    request: MeasureRequest
    timeout: float
    result: Future[list[list[float]]] = field(default_factory=Future)
    failed_at: list[str] = field(default_factory=list)


class DevicePool:
    """Distributes jobs to devices.

    Args:
        provider: Lists the devices.
        self_test: What each device has to compute first; nothing if None.
        mismatch: Returns why a device does not match, by its description; None if it does.
        note: Called with messages for the user, from any thread.
        idle_timeout: Seconds without any device until jobs fail.
        connect_timeout: Seconds until a device must be ready.
    """

    def __init__(
        self,
        provider: DeviceProvider,
        self_test: SelfTest | None = None,
        mismatch: Callable[[Mapping[str, Any]], str | None] = lambda description: None,
        note: Callable[[str], None] = lambda text: None,
        idle_timeout: float = 60.0,
        connect_timeout: float = _CONNECT_SECONDS,
    ) -> None:
        self._provider, self._self_test, self._mismatch, self._note = (
            provider,
            self_test,
            mismatch,
            note,
        )
        self._idle_timeout, self._connect_timeout = idle_timeout, connect_timeout
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
        if not provider.addresses():
            self._note("no device is connected yet")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def devices(self) -> dict[str, Mapping[str, Any]]:
        """The descriptions of the connected devices, by address."""
        with self._change:
            return dict(self._ready)

    @property
    def retired(self) -> dict[str, str]:
        """Why devices were retired, by address."""
        with self._change:
            return dict(self._retired)

    def wait_until_ready(self) -> Mapping[str, Any]:
        """Wait for a first device and return its description.

        Raises:
            NoDeviceError: None has joined in time; gives the errors of those that tried.
        """
        with self._change:
            while not self._ready:
                if self._is_idle_too_long():
                    raise self._no_device_error()
                self._change.wait(1.0)
            return next(iter(self._ready.values()))

    def submit(self, request: MeasureRequest, timeout: float) -> Future[list[list[float]]]:
        """Queue a request for the next free device.

        Args:
            request: The request.
            timeout: Seconds that it may take.

        Returns:
            The samples of each library. The exceptions are JobFailedError and NoDeviceError.
        """
        job = _Job(request, timeout)
        with self._change:
            self._jobs.append(job)
            self._change.notify_all()
        return job.result

    def close(self) -> None:
        """Disconnect all devices at once."""
        with self._change:
            self._closed = True
            processes = list(self._processes)
            self._change.notify_all()
        for process in processes:
            process.close()
        for thread in [self._watcher, *self._threads]:
            thread.join(10)

    def __enter__(self) -> DevicePool:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def _watch(self) -> None:
        """Start a thread for each new device; fail the jobs after the idle timeout."""
        while not self._closed:
            try:
                addresses = self._provider.addresses()
            except TargetError as error:
                self._note(str(error))
                addresses = []
            with self._change:
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                wanted = sum(address not in self._retired for address in addresses)
                for _ in range(wanted - len(self._threads)):
                    thread = threading.Thread(target=self._serve_device, daemon=True)
                    self._threads.append(thread)
                    thread.start()
                if self._is_idle_too_long():
                    for job in self._jobs:
                        job.result.set_exception(self._no_device_error())
                    self._jobs.clear()
                self._change.wait(min(_POLL_SECONDS, self._idle_timeout))

    def _is_idle_too_long(self) -> bool:
        return not self._ready and time.monotonic() - self._last_ready > self._idle_timeout

    def _no_device_error(self) -> NoDeviceError:
        reasons = [f"{where} {why}" for where, why in self._retired.items()] + self._reasons
        return NoDeviceError(
            "no device is left to measure on",
            expected=f"one within {self._idle_timeout:g} s",
            found="; ".join(dict.fromkeys(reasons[-4:])) or "none",
            fix="What has been measured is kept: the same command goes on from there.",
        )

    def _serve_device(self) -> None:
        """Connect to a device and run jobs on it until it is retired or the pool is closed."""
        failures = 0
        while not self._closed:
            try:
                process = self._connect()
            except DeviceFailedError as failure:
                with self._change:
                    self._reasons.append(str(failure))
                self._note(f"a device is not ready: {failure}")
                return  # `_watch` tries again as long as the provider lists the device
            address = process.address
            failures = self._run_jobs(process, address, failures)
            self._disconnect(process, address)
            others = len(self.devices)
            if failures >= (_FAILURES if others else _FAILURES_ALONE):
                self._retire(address, f"failed {failures} times in a row")
            if address in self.retired:
                return

    def _run_jobs(self, process: DeviceProcess, address: str, failures: int) -> int:
        """Run jobs on a device until one fails; return the number of failures in a row."""
        while True:
            job = self._next_job(address)
            if job is None:
                return failures
            try:
                answer = process.request(job.request.to_json(), job.timeout)
                if "error" in answer:
                    job.result.set_exception(JobFailedError(str(answer["error"])))
                else:
                    job.result.set_result(
                        check_samples(answer, len(job.request.libraries), job.request.repeat)
                    )
                failures = 0
            except DeviceFailedError as failure:
                if "invalid times" in str(failure):
                    self._retire(address, str(failure))
                elif not self._closed:
                    self._note(f"{address}: {failure}")
                self._requeue(job, address, str(failure))
                return failures + 1

    def _connect(self) -> DeviceProcess:
        process = DeviceProcess(self._provider.command(), self._connect_timeout)
        with self._change:
            self._processes.add(process)
        address = process.address
        try:
            if address in self.retired:
                raise DeviceFailedError(f"{address} is retired")
            reason = self._mismatch(process.description)
            if reason is None and self._self_test is not None:
                reason = self._failed_self_test(process, self._self_test)
            if reason is not None:
                self._retire(address, reason)
                raise DeviceFailedError(f"{address} {reason}")
        except DeviceFailedError:
            self._close_process(process)
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

    def _failed_self_test(self, process: DeviceProcess, self_test: SelfTest) -> str | None:
        """Return why a device fails the self test, or None if it passes."""
        assert self_test.request.outputs is not None
        own = Path(f"{self_test.request.outputs}.{threading.get_ident()}.npz")
        request = replace(self_test.request, outputs=str(own))
        answer = process.request(request.to_json(), self._connect_timeout)
        if "error" in answer:
            return f"cannot run a kernel: {str(answer['error'])[:200]}"
        check_samples(answer, len(request.libraries), request.repeat)
        try:
            found = read_arguments(own)
        except (OSError, ValueError) as error:
            return f"sent unreadable results: {error}"
        finally:
            own.unlink(missing_ok=True)
        error_found = self_test.error(found)
        return None if error_found <= 1 else "computes a wrong result"

    def _next_job(self, address: str) -> _Job | None:
        """Wait for a job that has not failed on this device, unless it is the only device."""
        with self._change:
            while not self._closed and address not in self._retired:
                alone = len(self._ready) == 1
                for job in self._jobs:
                    if alone or address not in job.failed_at:
                        self._jobs.remove(job)
                        return job
                self._change.wait(1.0)
        return None

    def _requeue(self, job: _Job, address: str, reason: str) -> None:
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

    def _disconnect(self, process: DeviceProcess, address: str) -> None:
        with self._change:
            self._ready.pop(address, None)
            if not self._ready:
                self._last_ready = time.monotonic()
        self._close_process(process)

    def _close_process(self, process: DeviceProcess) -> None:
        process.close()
        with self._change:
            self._processes.discard(process)
