"""Compiles in a process of its own: ``python -m mvlm.compile.compiler_process MESSAGES``.

The compiler takes hundreds of megabytes and seconds to import. The process that asks stays as small
as it is on a device, and so does the peak memory that it reports.

The request comes on standard input. Progress, warnings and the error go to the file descriptor
MESSAGES, a JSON array a line; :func:`compile_in_child` calls back and raises accordingly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mvlm.compile.child_error import error_from_json, error_to_json
from mvlm.compile.job import CompileJob, plan_job
from mvlm.models.quantization import DEFAULT_SCHEME, plan_quantization
from mvlm.runtime.errors import TargetError
from mvlm.runtime.progress import Progress
from mvlm.runtime.start_module import module_command

_MODULE = "mvlm.compile.compiler_process"
_STANDARD_ERROR = 2
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class CompileRequest:
    """A checkpoint to compile for this machine.

    Attributes:
        checkpoint: The checkpoint's folder.
        quantization: The decoder's scheme; the default one if None.
        vision_quantization: The tower's and projector's scheme; the usual one if None.
        vision_tower: The folder of a V1's CLIP, where it would not be found.
    """

    checkpoint: Path
    quantization: str | None = None
    vision_quantization: str | None = None
    vision_tower: Path | None = None

    def plan(self) -> CompileJob:
        """Plan the job.

        Raises:
            UsageError: A scheme is unknown.
            ConfigError: The checkpoint's configuration is not usable.
        """
        scheme = DEFAULT_SCHEME if self.quantization is None else self.quantization
        return plan_job(
            self.checkpoint,
            quantization=plan_quantization(scheme, vision=self.vision_quantization),
            vision_tower=self.vision_tower,
        )

    def to_json(self) -> dict[str, str]:
        """Return what is not None as plain JSON values."""
        return {key: str(value) for key, value in asdict(self).items() if value is not None}


def _parse_request(values: dict[str, str]) -> CompileRequest:
    paths = {key: Path(values.pop(key)) for key in ("checkpoint", "vision_tower") if key in values}
    return CompileRequest(**paths, **values)  # type: ignore[arg-type]


def compile_in_child(
    request: CompileRequest, output: Path, progress: Progress, warn: Callable[[str], None]
) -> None:
    """Compile a checkpoint in a child process.

    An exception here, such as KeyboardInterrupt, ends the child, which removes what it has begun.

    Args:
        request: What to compile.
        output: The artifact's folder.
        progress: Called as the work proceeds.
        warn: Called with what the user should know.

    Raises:
        MvlmError: As of `compile_job`.
        TargetError: The child was killed.
        OSError: The system refused something to it.
    """
    progress("compile: starting", 0, 1)
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as messages:
        try:
            child = subprocess.Popen(
                module_command(_MODULE, str(writer)),
                stdin=subprocess.PIPE,
                stdout=_STANDARD_ERROR,  # libraries may print; ours is for the answer
                pass_fds=(writer,),
                # A session of its own, so that Ctrl-C reaches it through us, once.
                start_new_session=True,
            )
        finally:
            os.close(writer)
        with child:
            try:
                _send_request(child, request, output)
                error = _follow(messages, progress, warn)
                child.wait()
            except BaseException:
                _interrupt(child)
                raise
    if error is not None:
        raise error
    if child.returncode != 0:
        raise _unfinished(child.returncode)


def _send_request(child: subprocess.Popen[bytes], request: CompileRequest, output: Path) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin as stream:
        stream.write(json.dumps([request.to_json(), os.fspath(output)]).encode())


def _follow(
    messages: Iterable[str], progress: Progress, warn: Callable[[str], None]
) -> BaseException | None:
    """Pass on what the child says, until it ends; return the error that it reported."""
    error = None
    for line in messages:
        if not line.endswith("\n"):  # it was killed
            break
        kind, *values = json.loads(line)
        if kind == "progress":
            progress(*values)
        elif kind == "warning":
            warn(*values)
        else:
            error = error_from_json(*values)
    return error


def _interrupt(child: subprocess.Popen[bytes]) -> None:
    """Let the child clean up, and end it if it takes too long."""
    child.terminate()
    try:
        child.wait(_PATIENCE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


def _unfinished(code: int) -> TargetError:
    killed = code == -signal.SIGKILL
    return TargetError(
        "the compiler ended before it was done",
        found=signal.Signals(-code).name if code < 0 else f"exit code {code}",
        fix="The system does that where memory runs out: close other programs, or compile on a "
        "larger machine."
        if killed
        else None,
    )


def main(descriptor: str) -> int:
    """Compile what standard input asks for: the child's side."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def send(*message: Any) -> None:
        messages.write(json.dumps(message).encode() + b"\n")

    def progress(*report: Any) -> None:
        # Compiled code may have swallowed the interrupt.
        if interrupted:
            raise KeyboardInterrupt
        send("progress", *report)

    signal.signal(signal.SIGTERM, interrupt)
    os.set_inheritable(int(descriptor), False)  # a linker shall not keep it open
    with os.fdopen(int(descriptor), "wb", buffering=0) as messages:
        try:
            from mvlm.compile.driver import compile_job

            values, output = json.load(sys.stdin)
            job = _parse_request(values).plan()
            compile_job(
                job, Path(output), progress=progress, warn=lambda text: send("warning", text)
            )
        except BaseException as error:
            if interrupted:
                # Everything is cleaned up. TVM would warn of the work that it has not finished.
                os._exit(1)
            with suppress(BrokenPipeError):  # nobody asks any more
                send("error", *error_to_json(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
