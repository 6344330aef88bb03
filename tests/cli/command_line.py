"""Running the command line from a test: in this process, in one of its own, or on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mvlm.cli.app import run

# Takes the terminal on standard input as the process's own, so that Ctrl-C reaches it.
_ON_TERMINAL = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "from mvlm.cli import main; main()"
)


# Nobody types faster; and readline, which shows its prompt first and takes over the keyboard then,
# loses a Ctrl-C that comes in between.
_REACTION_SECONDS = 0.2

_ENVIRONMENT = {
    "TERM": "xterm-256color",
    "MVLM_HISTORY": "off",
    "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody answers where the cursor is
}


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The document on standard output, which must hold nothing else."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document


def mvlm(*arguments: str | Path, stdin: str = "") -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch("sys.stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        exit_code = run([str(argument) for argument in arguments])
    return Result(exit_code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, code: str | None = None) -> subprocess.Popen[str]:
    """Start a command in a process of its own; `code` is the Python to run in place of mvlm's."""
    program = ["-c", code] if code else ["-m", "mvlm.cli"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A parent that ignores Ctrl-C, as a script in the background does, would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> Result:
    """Wait for a started command."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Result(process.returncode, stdout, stderr)


class Terminal:
    """A command on a terminal of its own, with a person's hands on the keyboard.

    Args:
        arguments: The command's.
        environment: Set besides the test's own environment.
    """

    def __init__(self, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        self._keyboard, screen = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *map(str, arguments)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            env=os.environ | _ENVIRONMENT | (environment or {}),
        )
        os.close(screen)
        self.seen = ""
        self._cursor = 0

    def type(self, text: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C and ``\\x04`` Ctrl-D."""
        time.sleep(_REACTION_SECONDS)
        os.write(self._keyboard, text.encode())

    def wait_for(self, pattern: str, timeout: float = 60) -> str:
        """Read the screen until a regular expression matches what came since the last one.

        Returns:
            What came, up to the match's end.
        """
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen[self._cursor :], re.DOTALL)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} in {self.seen[self._cursor :]!r}")
        begin, self._cursor = self._cursor, self._cursor + found.end()
        return self.seen[begin : self._cursor]

    def leave(self, timeout: float = 60) -> int:
        """Read on until the command ends, and return its exit code."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0 and self._read(left):
            pass
        try:
            return self._process.wait(max(left, 1))
        finally:
            self._process.kill()
            os.close(self._keyboard)

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._keyboard], [], [], timeout)
        if not ready:
            return False
        try:
            data = os.read(self._keyboard, 1 << 16)
        except OSError:  # Linux says so where the other end is closed.
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)
