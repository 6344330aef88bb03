"""A command on a terminal whose screen can be looked at."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import time
from pathlib import Path

import pyte

from tests.cli.command_line import Terminal

_WHERE_IS_THE_CURSOR = "\x1b[6n"


class Screen(Terminal):
    """A terminal of a size, which shows what was written and says where its cursor is."""

    def __init__(
        self,
        *arguments: str | Path,
        columns: int = 80,
        rows: int = 60,
        environment: dict[str, str] | None = None,
    ) -> None:
        answers = {"PROMPT_TOOLKIT_NO_CPR": "", "COLUMNS": "", "LINES": ""}
        super().__init__(*arguments, environment=answers | (environment or {}))
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, size)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)

    @property
    def text(self) -> str:
        """What the screen shows, without blanks at the lines' ends."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def until(self, pattern: str, timeout: float = 15) -> str:
        """Read on until the screen's text matches, and return it."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text, re.DOTALL):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} in {self.text!r}")
        return self.text

    def _read(self, timeout: float) -> bool:
        begin = len(self.seen)
        if not super()._read(timeout):
            return False
        new = self.seen[begin:]
        self._stream.feed(new)
        for _ in range(new.count(_WHERE_IS_THE_CURSOR)):
            cursor = self.screen.cursor
            os.write(self._keyboard, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
        return True
