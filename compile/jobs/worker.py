"""The process that does one step: ``python -m mvlm.compile.jobs.worker FOLDER RESULT PARENT``.

The request comes on standard input; the outcome goes to the file descriptor RESULT; what is printed
is the step's log. FOLDER is empty, to work in. The process ends with its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mvlm.compile.jobs.errors import StoreError, store_error
from mvlm.compile.jobs.messages import StepOutcome, StepRequest, parse_step_request
from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.store import open_store
from mvlm.compile.jobs.store.results import total_bytes
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.machine import peak_rss_bytes

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_MOST_CHARACTERS = 4_000


def main(folder: str, result: str, parent: str) -> None:
    """Execute the step that standard input asks for."""
    _die_with_parent(int(parent))
    os.set_inheritable(int(result), False)  # a linker shall not keep it open
    request = parse_step_request(sys.stdin.read())
    _log(f"{request.name}: {request.kind} {request.key}")
    outcome = attempt_step(request, Path(folder))
    _log(f"error: {outcome.error}" if outcome.error else f"done in {outcome.seconds:.1f} s")
    with os.fdopen(int(result), "w") as file:
        file.write(outcome.to_json())


def attempt_step(request: StepRequest, folder: Path) -> StepOutcome:
    """Execute a step and return its outcome; nothing is raised."""
    begin, error, size = time.monotonic(), None, None
    try:
        # Not before there is somebody to catch what it raises: it imports the compiler.
        from mvlm.compile.jobs.execute import execute_step

        made = execute_step(request, open_store(request.store), folder, _progress())
        size = total_bytes(made.files)
    except Exception as raised:
        error = raised
        if not isinstance(raised, MvlmError):  # ours say in a line what there is to say
            with contextlib.suppress(OSError):
                traceback.print_exception(raised)
    retryable, line = (False, "") if error is None else _classify(error)
    return StepOutcome(
        key=request.key,
        error=" ".join(line.split())[:_MOST_CHARACTERS],
        retryable=retryable,
        out_of_memory=isinstance(error, MemoryError),
        worker=str(this_process()),
        seconds=time.monotonic() - begin,
        peak_bytes=peak_rss_bytes(),
        result_bytes=size,
    )


def _classify(error: Exception) -> tuple[bool, str]:
    """Return whether a retry can help, and the error's line."""
    if isinstance(error, OSError):
        error = store_error(str(error.filename or "a file"), error)
    if isinstance(error, StoreError):
        return error.retryable, str(error)
    if isinstance(error, MvlmError):
        return False, str(error)
    if isinstance(error, MemoryError):
        return True, "not enough memory"
    return False, f"internal error: {type(error).__name__}: {error}"


def _progress() -> Callable[[str, int, int], None]:
    """Return a function that prints a line whenever another thing is being done."""
    last = ""

    def show(step: str, done: int, total: int) -> None:
        nonlocal last
        if step != last:
            last = step
            _log(step)

    return show


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk costs the log, not the step
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _die_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask for that
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
