"""The log of a ggml library, llama.cpp's or a fork's: its last lines, for facts and for errors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from mvlm.runtime.errors import MvlmError

LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_MAX_LINES = 400
_DEBUG = 1  # ggml's level of what floods the log

# ctypes does not keep a callback alive that C holds.
_callbacks: list[Any] = []


class GgmlLog:
    """What a tool's library has logged.

    Args:
        tool: The tool's name, for errors.
        callback_type: What the library's bindings declare a log callback as.

    Attributes:
        callback: To be given to the library.
    """

    def __init__(self, tool: str, callback_type: Any = LOG_CALLBACK) -> None:
        self._tool = tool
        self._lines: list[str] = []
        self.callback = callback_type(self._take)
        _callbacks.append(self.callback)

    def lines_with(self, words: Sequence[str]) -> list[str]:
        """Return the lines that hold one of the words."""
        return [line for line in self._lines if any(each in line for each in words)]

    def require(self, good: object, what: str) -> None:
        """Raise MvlmError with the log's last line unless the library did `what`."""
        if not good:
            said = " ".join(self._lines[-1:]) or "nothing"
            raise MvlmError(f"{self._tool} failed", expected=f"that it {what}", found=said)

    def _take(self, level: int, text: bytes, data: object) -> None:
        if level != _DEBUG:
            self._lines.append(text.decode(errors="replace").strip())
            del self._lines[:-_MAX_LINES]
