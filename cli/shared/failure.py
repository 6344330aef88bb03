"""From whatever was raised to one line on standard error and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import threading
import traceback
from typing import Any

import typer

from mvlm.cli.shared.interrupts import termination_signal
from mvlm.cli.shared.invocation import Invocation
from mvlm.cli.shared.streams import OutputError, abandon_output
from mvlm.cli.shared.terminal import show_json, warn
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.terminal_text import one_line

_FAILED = 1
_SIGNALLED = 128  # a shell adds the number of the signal that ended a process
_READER_GONE = _SIGNALLED + signal.SIGPIPE

# What the extra `compile` brings; a device needs none of it.
_COMPILER_MODULES = {"tvm", "safetensors", "ml_dtypes", "apache-tvm", "elftools"}
# Packages of ours that a device's bundle leaves out.
_COMPILER_PACKAGES = ("mvlm.compile", "mvlm.models", "mvlm.distribution")

# What helps against a limit of the system's.
_LIMITS = {
    errno.EMFILE: "`ulimit -n` shows how many files this process may open, and raises it.",
    errno.ENFILE: "The whole system has reached its limit: close other programs.",
    errno.EAGAIN: "`ulimit -u` shows how many processes and threads this user may have; a "
    "container's limit (pids.max) counts too.",
}

_NO_THREADS = f"no more threads can be started. {_LIMITS[errno.EAGAIN]}"

# Typer's public name for its class of usage errors is that of a subclass only.
_TyperUsageError = typer.BadParameter.__mro__[1]


def report_failure(error: BaseException, invocation: Invocation) -> int:
    """Say what went wrong, and return the exit code that it stands for."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, (BrokenPipeError, OutputError)):
        abandon_output()
    if isinstance(error, BrokenPipeError):  # `| head` wants us to leave quietly
        return _READER_GONE
    if invocation.debug:
        warn("".join(traceback.format_exception(error)).rstrip("\n"))
    if isinstance(error, (KeyboardInterrupt, typer.Abort)) or termination_signal():
        if termination_signal() is None and _has_no_threads_left():
            warn(f"error: {_NO_THREADS}")
            return _FAILED
        ended_by = termination_signal()
        warn("interrupted" if ended_by is None else f"terminated by {ended_by.name}")
        return _SIGNALLED + (ended_by or signal.SIGINT)
    line, exit_code = _explain(error)
    warn(one_line(line))
    if invocation.json:
        show_json({"error": _describe(error, line)})
    return exit_code


def require_threads() -> None:
    """Start a thread, to know that the system allows one.

    Where it does not, NumPy's OpenBLAS interrupts the process while it is imported, and NumPy may
    print a traceback of that.

    Raises:
        RuntimeError: The system refuses.
    """
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _has_no_threads_left() -> bool:
    try:
        require_threads()
    except RuntimeError:
        return True
    return False


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, MvlmError):
        return f"error: {error}", error.exit_code
    if isinstance(error, _TyperUsageError):
        return _explain_usage(error)
    if isinstance(error, ModuleNotFoundError) and _is_of_compiler(error):
        line = (
            "error: the compiler is not installed: expected the packages of the extra `compile`, "
            f"found no {error.name}. `pip install 'mvlm[compile]'`"
        )
        return line, _FAILED
    if isinstance(error, MemoryError):
        return "error: not enough memory", _FAILED
    if isinstance(error, OSError) and error.strerror:
        return _explain_system(error), _FAILED
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"error: {_NO_THREADS}", _FAILED
    line = f"internal error: {type(error).__name__}: {error}"
    return f"{line.rstrip(': ')}; run again with --debug for the traceback", _FAILED


def _explain_system(error: OSError) -> str:
    where = f"{_as_text(error.filename)}: " if error.filename else ""
    advice = _LIMITS.get(error.errno or 0)
    return f"error: {where}{error.strerror}" + (f". {advice}" if advice else "")


def _as_text(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, bytes) else str(path)


def _is_of_compiler(error: ModuleNotFoundError) -> bool:
    name = error.name or ""
    return name.partition(".")[0] in _COMPILER_MODULES or name.startswith(_COMPILER_PACKAGES)


def _explain_usage(error: Any) -> tuple[str, int]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "mvlm"
    return f"error: {error.format_message().rstrip('.')}. See `{path} --help`.", error.exit_code


def _describe(error: BaseException, line: str) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": type(error).__name__, "message": line}
    if isinstance(error, MvlmError):
        halves = {"problem": error.problem, "expected": error.expected, "found": error.found}
        described |= {k: None if v is None else str(v) for k, v in halves.items()}
        described["fix"] = error.fix
    return described
