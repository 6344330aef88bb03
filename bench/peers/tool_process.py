"""A tool's worker process, from its parent's side: requests with a time limit, and its end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from mvlm.runtime.errors import MvlmError
from mvlm.runtime.start_module import module_command

WORKER = tuple(module_command("mvlm.bench.peers.worker"))

_MAX_LINE_BYTES = 256 << 20
_SHOWN_BYTES = 4096
_SHOWN = 200
_ENDING_SECONDS = 5.0


class PeerError(MvlmError):
    """A tool failed at its work: it said so, ended, hung, or printed what is no reply."""


class ToolProcess:
    """One tool's process.

    Args:
        name: The tool's, for messages.
        command: What is run.
        environment: The process's environment; this one's if None.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str] = WORKER,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        # Without a name in any folder, so that nothing is left of it.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # A session of its own: Ctrl-C reaches us alone, and with a group we end what it started.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env=environment,
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its reply.

        Args:
            do: What to do, as `worker` lists it.
            timeout: Seconds to wait; the process is killed then.
            arguments: The request's other fields.

        Raises:
            PeerError: It failed, or the process ended or hung; the process is gone in both cases.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended: the reply, which is none, tells
            self._process.stdin.write((json.dumps({"do": do} | arguments) + "\n").encode())
            self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self.kill()
            raise PeerError(
                f"{self.name} hangs",
                expected=f"an answer to `{do}` within {timeout:g} s",
                found="none",
            ) from None
        return self._read(do, line)

    def close(self) -> None:
        """Let the process end by itself, or end it."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._errors):
            with suppress(OSError):
                assert stream is not None
                stream.close()

    def __enter__(self) -> ToolProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.kill()

    def _listen(self) -> None:
        """Hand the process's lines over, and at its end an empty one."""
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                self._lines.put(line)
        self._lines.put(b"")

    def _read(self, do: str, line: bytes) -> dict[str, Any]:
        if not line:
            raise self._ended(do)
        try:
            reply = json.loads(line)
            if "error" in reply:
                raise PeerError(f"{self.name} fails at `{do}`", found=str(reply["error"]))
            found: dict[str, Any] = dict(reply["ok"])
        except (ValueError, KeyError, TypeError):
            shown = line[:_SHOWN].decode(errors="replace").strip()
            self.kill()
            raise PeerError(
                f"{self.name} answers nonsense", expected=f"a reply to `{do}`", found=repr(shown)
            ) from None
        return found

    def _ended(self, do: str) -> PeerError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_SECONDS)
        code = self._process.poll()
        ending = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        said = self._last_error()
        self.kill()
        return PeerError(
            f"{self.name} ended at `{do}`", found=f"{ending}: {said}" if said else ending
        )

    def _last_error(self) -> str:
        """The last line that the process printed as an error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _SHOWN_BYTES))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
