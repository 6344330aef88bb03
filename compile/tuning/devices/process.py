"""A local process for each device: it takes requests, and is killed when it does not answer."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from mvlm.compile.tuning.devices.providers import THIS_MACHINE
from mvlm.compile.tuning_log.database import is_time
from mvlm.runtime.artifact.json_object import parse_json_object
from mvlm.runtime.errors import ArtifactError

# Of an answer, in bytes: a device's description is the longest.
_MAX_LINE = 1 << 20
# Of one call of a kernel.
_MAX_SECONDS = 3600


class DeviceFailedError(Exception):
    """A device died, hung, or sent an invalid answer; another device may not."""


class DeviceProcess:
    """A process that speaks the protocol of `mvlm.runtime.measurement.worker`.

    Args:
        command: Starts it.
        timeout: Seconds that it may take until it is ready.

    Raises:
        DeviceFailedError: It does not become ready.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us to handle
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors = ""
        for read in (self._read_answers, self._read_errors):
            threading.Thread(target=read, daemon=True).start()
        try:
            self.description = self._receive(timeout)
        except DeviceFailedError:
            self.close()
            raise

    @property
    def address(self) -> str:
        """The device's address, the same for each connection."""
        return str(self.description.get("address", THIS_MACHINE))

    def request(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            DeviceFailedError: There is no answer in time, or it is not a JSON object.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise DeviceFailedError(self._died()) from None
        return self._receive(timeout)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError, ValueError):
                assert stream is not None
                stream.close()

    def _receive(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise DeviceFailedError(f"no answer within {timeout:g} s") from None
        if line is None:
            raise DeviceFailedError(self._died())
        try:
            return dict(parse_json_object(line.encode(), "its answer").values)
        except ArtifactError:
            raise DeviceFailedError(f"an invalid answer: {line[:80]!r}") from None

    def _died(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        status = self._process.returncode
        ended = f"ended by signal {-status}" if status is not None and status < 0 else "ended"
        last = self._errors.strip().splitlines()[-1:]
        return f"its process {ended}" + (f": {last[0][:200]}" if last else "")

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while line := self._process.stdout.readline(_MAX_LINE):
                self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stderr:
                self._errors = (self._errors + line)[-4000:]


def check_samples(answer: Mapping[str, Any], libraries: int, repeat: int) -> list[list[float]]:
    """Check the samples in a device's answer.

    Raises:
        DeviceFailedError: Their number is wrong, or one is not a valid time.
    """
    seconds = answer.get("seconds")
    is_valid = (
        isinstance(seconds, list)
        and len(seconds) == libraries
        and all(isinstance(each, list) and len(each) == repeat for each in seconds)
        and all(is_time(value) and value < _MAX_SECONDS for each in seconds for value in each)
    )
    if not is_valid:
        raise DeviceFailedError(f"invalid times: {str(seconds)[:80]}")
    assert isinstance(seconds, list)
    return seconds
