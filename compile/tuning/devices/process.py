"""A device as a process here that can be asked, waited for, and killed when it does not answer."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from mvlm.compile.tuning.devices.sources import THIS_MACHINE
from mvlm.compile.tuning.log.lines import is_time
from mvlm.runtime.artifact.json_object import parse_json_object
from mvlm.runtime.errors import ArtifactError

# Of an answer: a device's description is the longest.
_LONGEST_LINE = 1 << 20
# Of one call of a kernel.
_MOST_SECONDS = 3600


class DeviceFailure(Exception):  # noqa: N818  # it is the device that failed, and the next one may not
    """A device died, hung, or answered nonsense."""


class DeviceProcess:
    """A process that speaks the protocol of `mvlm.runtime.device.worker`.

    Args:
        command: Starts it.
        timeout: Seconds that it may take until it is ready.

    Raises:
        DeviceFailure: It does not become ready.
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
        self._complaint = ""
        for read in (self._read_answers, self._read_complaints):
            threading.Thread(target=read, daemon=True).start()
        try:
            self.description = self._hear(timeout)
        except DeviceFailure:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where the device is; the same whenever it is connected to."""
        return str(self.description.get("address", THIS_MACHINE))

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            DeviceFailure: There is none in time, or it is no JSON object.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise DeviceFailure(self._died()) from None
        return self._hear(timeout)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError, ValueError):
                assert stream is not None
                stream.close()

    def _hear(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise DeviceFailure(f"no answer within {timeout:g} s") from None
        if line is None:
            raise DeviceFailure(self._died())
        try:
            return dict(parse_json_object(line.encode(), "its answer").values)
        except ArtifactError:
            raise DeviceFailure(f"an answer that is none: {line[:80]!r}") from None

    def _died(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        status = self._process.returncode
        ended = f"ended by signal {-status}" if status is not None and status < 0 else "ended"
        last = self._complaint.strip().splitlines()[-1:]
        return f"its process {ended}" + (f": {last[0][:200]}" if last else "")

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while line := self._process.stdout.readline(_LONGEST_LINE):
                self._lines.put(line)
        self._lines.put(None)

    def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stderr:
                self._complaint = (self._complaint + line)[-4000:]


def samples(answer: Mapping[str, Any], libraries: int, rounds: int) -> list[list[float]]:
    """Check what a device says that it measured.

    Raises:
        DeviceFailure: It is not so many samples, each a time that can be.
    """
    seconds = answer.get("seconds")
    right = (
        isinstance(seconds, list)
        and len(seconds) == libraries
        and all(isinstance(each, list) and len(each) == rounds for each in seconds)
        and all(is_time(value) and value < _MOST_SECONDS for each in seconds for value in each)
    )
    if not right:
        raise DeviceFailure(f"nonsense instead of times: {str(seconds)[:80]}")
    assert isinstance(seconds, list)
    return seconds
