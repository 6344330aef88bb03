"""What was typed before, kept between runs in a file for its owner alone.

The file has a JSON string on each line, the oldest first. It is ``$MVLM_HISTORY``, else
``mvlm/history`` in ``$XDG_STATE_HOME`` or ``~/.local/state``; ``MVLM_HISTORY=off`` keeps nothing.
A history that cannot be read or written is none: it must not get in the way of a question.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from prompt_toolkit.history import History

from mvlm.runtime.folders import home_folder

VARIABLE = "MVLM_HISTORY"
_OFF = "off"
_MOST_ENTRIES = 1000
_MOST_BYTES = 1 << 20
_MOST_ENTRY_BYTES = 1 << 14


def history_path() -> Path | None:
    """Return the history's file; None where there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        return None if named == _OFF else Path(named)
    base, home = os.environ.get("XDG_STATE_HOME"), home_folder()
    if base:
        return Path(base) / "mvlm/history"
    return home / ".local/state/mvlm/history" if home is not None else None


class FileHistory(History):
    """The history of a file; it is shortened where it has grown too long.

    Args:
        path: The file; None keeps the history of this run only.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries, the newest first."""
        if self._path is None:
            return []
        try:
            with self._opened() as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - _MOST_BYTES))
                entries = _entries(file.read(_MOST_BYTES))[-_MOST_ENTRIES:]
                if size > _MOST_BYTES:
                    file.truncate(0)
                    file.write(b"".join(map(_line, entries[-_MOST_ENTRIES // 2 :])))
        except OSError:
            return []
        return reversed(entries)

    def store_string(self, string: str) -> None:
        """Append an entry."""
        line = _line(string)
        if self._path is None or len(line) > _MOST_ENTRY_BYTES:
            return
        try:
            with self._opened() as file:
                file.write(line)
        except OSError:
            return

    def append_string(self, string: str) -> None:
        """Take an entry, unless it is the same as the one before."""
        if [string] != self.get_strings()[-1:]:
            super().append_string(string)

    def _opened(self) -> FileIO:
        assert self._path is not None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = open(os.open(self._path, flags, 0o600), "r+b", buffering=0)  # noqa: SIM115, PTH123
        os.fchmod(file.fileno(), 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)  # other chats write to it as well
        return file


def _line(entry: str) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _entries(data: bytes) -> list[str]:
    """Read lines; what is no JSON string, such as half of the first line, is passed over."""
    entries = []
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, str):
            entries.append(entry)
    return entries
