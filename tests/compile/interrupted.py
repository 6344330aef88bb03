"""Compiles a checkpoint again and again in forked children, each ended early in its own way.

Run as a program: importing the compiler takes longer than compiling a small model, so it is done
once, and before the compiler starts threads, which a fork would lose.

Arguments: a checkpoint, a folder to write to, and one fault for each child: ``SIGINT@weights``
sends the signal when the compiler reports that step, ``SIGINT@1.5`` after so many seconds, and
``LIMIT@1024`` lets no file grow beyond so many bytes. The artifacts are ``FOLDER/NUMBER/artifact``.
Prints a JSON list of how the children ended: ``done``, ``kill``, ``interrupt``, or an error's line.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

from mvlm.compile.driver import compile_job
from mvlm.compile.job import CompileJob, plan_job
from mvlm.runtime.errors import MvlmError


def compile_with_fault(job: CompileJob, destination: Path, kind: str, value: str) -> None:
    """Compile in this process, which the fault ends."""

    def progress(step: str, done: int, total: int) -> None:
        if step == value:
            os.kill(os.getpid(), signal.Signals[kind])

    if kind == "LIMIT":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
    elif value.replace(".", "").isdigit():
        handler = signal.SIG_DFL if kind == "SIGKILL" else signal.default_int_handler
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, float(value))
    compile_job(job, destination, progress=progress)
    signal.setitimer(signal.ITIMER_REAL, 0)


def in_child(job: CompileJob, destination: Path, kind: str, value: str) -> str:
    """Fork, compile, and say how the child ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        end = "done"
        try:
            compile_with_fault(job, destination, kind, value)
        except KeyboardInterrupt:
            end = "interrupt"
        except MvlmError as error:
            end = f"{type(error).__name__}: {error}"
        except BaseException as error:
            end = f"not one of ours: {error!r}"
        os.write(writer, end.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report:
        end = report.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return end if status == 0 else {-9: "kill", -14: "kill"}.get(status, f"exit code {status}")


def main() -> None:
    job = plan_job(Path(sys.argv[1]), quantization="q0f32")
    ends = []
    for index, fault in enumerate(sys.argv[3:]):
        kind, value = fault.split("@")
        ends.append(in_child(job, Path(sys.argv[2]) / str(index) / "artifact", kind, value))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
