"""A worker's process, from its parent's side: its request, log, memory and outcome."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from mvlm.compile.jobs.errors import StoreError, store_error
from mvlm.compile.jobs.messages import StepOutcome, StepRequest, parse_step_outcome
from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.store.files import Files
from mvlm.compile.jobs.store.runs import log_name, log_path
from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.start_module import module_command

_MODULE = "mvlm.compile.jobs.worker"
_MOST_BYTES = 1 << 16
# How often a log goes to a store that is no folder.
_SYNC_SECONDS = 5.0
# A process that was killed is seen no later than this.
_POLL_SECONDS = 0.5
# Between the last that a process says and its end.
_ENDING_SECONDS = 0.02
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess:
    """One attempt at a step, in a process of its own.

    Started from the thread that lives as long as this process: the system kills the worker when
    that thread ends.

    Args:
        request: The step.
        files: The store's.
        attempt: The number of this attempt, from 1.

    Raises:
        StoreError: There is no place to work in, or for the log.
    """

    def __init__(self, request: StepRequest, files: Files, attempt: int) -> None:
        self.request, self._files = request, files
        self._log_name = log_name(request.run, request.key, attempt)
        self._synced, self._started = 0.0, time.monotonic()
        self._is_closed = False
        try:
            with ExitStack() as stack:
                folder = stack.enter_context(files.scratch())
                self._log = log_path(files, request.run, request.key, attempt) or folder / "log"
                self._start(folder / "work")
                self._stack = stack.pop_all()
        except OSError as error:
            raise store_error(files.url, error) from error

    def _start(self, folder: Path) -> None:
        folder.mkdir()
        self.result, writer = os.pipe()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    module_command(_MODULE, str(folder), str(writer), str(os.getpid())),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writer,),
                    # Ctrl-C reaches us alone, and with a group we end what it started.
                    start_new_session=True,
                )
        except OSError:
            os.close(self.result)
            raise
        finally:
            os.close(writer)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(self.request.to_json().encode())

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """The memory that it takes now; 0 if it has ended."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * _PAGE_BYTES

    def poll(self) -> StepOutcome | None:
        """Return how it went, or None while it runs."""
        if self._process.poll() is None:
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync_log()
            return None
        data = os.read(self.result, _MOST_BYTES)
        self._close()
        try:
            return parse_step_outcome(data.decode())
        except (ArtifactError, UnicodeDecodeError):
            return self._unfinished()

    def wait(self) -> StepOutcome:
        """Wait until it ends, and return how it went."""
        return wait_any([self], math.inf)[0]

    def kill(self) -> None:
        """End the process and what it started, if it has not ended."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._close()

    def _unfinished(self) -> StepOutcome:
        code = self._process.returncode
        killed = code == -signal.SIGKILL
        ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        likely = ", as the system does where memory runs out" if killed else ""
        return StepOutcome(
            key=self.request.key,
            error=f"the worker ended before it was done: {ending}{likely}",
            retryable=True,
            out_of_memory=killed,
            worker=f"{this_process().host}:{self.pid}",
            seconds=time.monotonic() - self._started,
        )

    def _close(self) -> None:
        """Let go of what the process needed; only the first time does anything."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self.result)
            self._sync_log()
            self._stack.close()

    def _sync_log(self) -> None:
        """Bring the log to the store, if it does not lie there; without it, too, a step goes on."""
        self._synced = time.monotonic()
        if self._files.folder is None:
            with suppress(StoreError):
                self._files.put(self._log_name, self._log)


def wait_any(workers: Sequence[WorkerProcess], seconds: float) -> list[StepOutcome]:
    """Wait until a worker ends, or so many seconds; return the outcomes of those that ended."""
    deadline = time.monotonic() + seconds
    while True:
        outcomes = [outcome for worker in workers if (outcome := worker.poll())]
        left = deadline - time.monotonic()
        if outcomes or left <= 0:
            return outcomes
        # A worker's end of the pipe closes when it ends, however it ends.
        results = [worker.result for worker in workers]
        if select.select(results, [], [], min(left, _POLL_SECONDS))[0]:
            time.sleep(_ENDING_SECONDS)
