"""Printing: to people on a terminal, and to programs.

Text that came from a file or a model could hold control sequences that reprogram a terminal, so
whatever goes to one passes :func:`mvlm.runtime.terminal_text.printable`.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

import typer

from mvlm.runtime.terminal_text import one_line, printable

_PATH_BYTES = "mvlm.path_bytes"  # the name of an error handler


def prepare_streams() -> None:
    """Let no character that a stream cannot hold, or that is not UTF-8, end the program.

    A path that is not UTF-8 goes to standard output as the bytes that it is, for programs.
    """
    codecs.register_error(_PATH_BYTES, _path_bytes)
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, _PATH_BYTES),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _path_bytes(error: UnicodeError) -> tuple[bytes, int]:
    """Encode what cannot be: the surrogates of a path (PEP 383) as its bytes, the rest as ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    found = (ord(c) - 0xDC00 if "\udc80" <= c <= "\udcff" else ord("?") for c in characters)
    return bytes(found), error.end


def version_callback(value: bool) -> None:
    """Print the version and leave, if asked for."""
    if value:
        from importlib import metadata

        show(f"mvlm {metadata.version('mvlm')}")
        raise typer.Exit


def is_terminal(stream: TextIO) -> bool:
    """Whether a person is likely to look at a stream."""
    return stream.isatty()


def is_dumb() -> bool:
    """Whether the terminal can do nothing but write lines."""
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


def can_show(text: str) -> bool:
    """Whether standard output's encoding has the characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def show(text: str, end: str = "\n") -> None:
    """Print to standard output at once; made harmless if that is a terminal."""
    print(printable(text) if is_terminal(sys.stdout) else text, end=end, flush=True)


def warn(text: str) -> None:
    """Print a line to standard error: a warning, an error, or progress."""
    # Nobody reads it, or the disk is full: that must not end the work.
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def show_dim(text: str) -> None:
    """Print a line of lesser weight, if standard output is a terminal."""
    if is_terminal(sys.stdout):
        plain = "NO_COLOR" in os.environ or is_dumb()
        print(printable(text) if plain else f"\x1b[2m{printable(text)}\x1b[0m", flush=True)


def show_json(document: dict[str, Any]) -> None:
    """Print the one document of ``--json``, in ASCII, so that it survives any locale."""
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)


def cell_width(text: str) -> int:
    """Count the cells that a line takes on a terminal: 2 for a wide character, none for a mark."""
    if text.isascii():
        return len(text)
    # Imported only here: rich would slow the start of every verb.
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Fill a line up to `width` cells, with its text to the left or to the `right`."""
    blanks = " " * (width - cell_width(text))
    return blanks + text if right else text + blanks


def show_table(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns, each pair on one line."""
    lines = [(one_line(name), one_line(value)) for name, value in rows]
    width = max((cell_width(name) for name, _ in lines), default=0)
    for name, value in lines:
        show(f"{padded(name, width)}  {value}".rstrip(" "))


def show_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of equally many cells, the first of them aligned left and the others right."""
    lines = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(cell_width, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = zip(row, widths, strict=True)
        show("  ".join(padded(cell, width, right=at > 0) for at, (cell, width) in enumerate(cells)))


def readable_bytes(count: float) -> str:
    """Write a number of bytes as a person reads it, in powers of ten: ``5.7 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
