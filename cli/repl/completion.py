"""What Tab completes: commands, and after some of them names of files and of settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from mvlm.cli.repl.settings import SETTINGS

_TAKE_FILES = ("/image", "/load", "/save", "/export")
_MOST_NAMES = 200


class CommandCompleter(Completer):
    """Completes the line up to the cursor.

    Args:
        commands: The names of the commands.
    """

    def __init__(self, commands: Iterable[str]) -> None:
        self._commands = sorted(commands)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """Yield what may stand at the end of the line."""
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, blank, rest = line.partition(" ")
        if not blank:
            found = [each for each in self._commands if each.startswith(name)]
            yield from (Completion(each, -len(name)) for each in found)
        elif name in _TAKE_FILES:
            yield from _files(rest)
        elif name == "/set" and " " not in rest:
            yield from (Completion(each, -len(rest)) for each in SETTINGS if each.startswith(rest))


def _files(typed: str) -> Iterator[Completion]:
    """Complete the last path of a line, as a shell would spell it: blanks take a backslash."""
    word = _last_word(typed)
    path = _plain(word)
    folder, _, begin = path.rpartition("/")
    place = os.path.expanduser(f"{folder}/" if "/" in path else ".")  # noqa: PTH111
    try:
        with os.scandir(place) as entries:
            names = [f"{each.name}/" if each.is_dir() else each.name for each in entries]
    except OSError:
        return
    for name in sorted(names)[:_MOST_NAMES] if not begin else sorted(names):
        is_hidden = name.startswith(".") and not begin.startswith(".")
        if name.startswith(begin) and not is_hidden and name.isprintable():
            spelled = name.replace("\\", "\\\\").replace(" ", "\\ ").replace("'", "\\'")
            end = word[len(word) - len(_spelled_end(word)) :]
            yield Completion(spelled, -len(end), display=Path(name).name)


def _last_word(typed: str) -> str:
    """Return the text behind the last blank that has no backslash and no quote before it."""
    begin, at, quote = 0, 0, ""
    while at < len(typed):
        character = typed[at]
        if character == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == " ":
            begin = at + 1
        at += 1
    return typed[begin:]


def _plain(word: str) -> str:
    """Take off quotes and backslashes."""
    plain, escaped = "", False
    for character in word:
        if escaped or character not in "\\'\"":
            plain, escaped = plain + character, False
        else:
            escaped = character == "\\"
    return plain


def _spelled_end(word: str) -> str:
    """Return the part of a word behind its last slash."""
    return word.rpartition("/")[2]
