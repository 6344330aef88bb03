"""Printing: to people on a terminal, and to programs.

Text that came from a file or a model could hold control sequences that reprogram a terminal, so
whatever goes to one passes :func:`printable`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

import typer

# What separates words and lines is harmless; a carriage return could hide what came before it.
_HARMLESS = "\n\t"


def prepare_streams() -> None:
    """Let no character that a terminal cannot show, or that is not UTF-8, end the program."""
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "replace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def version_callback(value: bool) -> None:
    """Print the version and leave, if asked for."""
    if value:
        from importlib import metadata

        show(f"mvlm {metadata.version('mvlm')}")
        raise typer.Exit


def is_terminal(stream: TextIO) -> bool:
    """Whether a person is likely to look at a stream."""
    return stream.isatty()


def printable(text: str) -> str:
    """Replace control characters, but for line breaks and tabs."""
    return "".join(c if c.isprintable() or c in _HARMLESS else "\ufffd" for c in text)


def show(text: str, end: str = "\n") -> None:
    """Print to standard output at once; made harmless if that is a terminal."""
    print(printable(text) if is_terminal(sys.stdout) else text, end=end, flush=True)


def note(text: str) -> None:
    """Tell something beside the result: a line on standard error."""
    # Nobody reads it, or the disk is full: that must not end the work.
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def show_dim(text: str) -> None:
    """Print a line of lesser weight, if standard output is a terminal."""
    if is_terminal(sys.stdout):
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        print(printable(text) if plain else f"\x1b[2m{printable(text)}\x1b[0m", flush=True)


def show_json(document: dict[str, Any]) -> None:
    """Print the one document of ``--json``, in ASCII, so that it survives any locale."""
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)


def show_table(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        show(f"{name:<{width}}  {value}".rstrip())


def show_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of equally many cells, the first of them aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        show("  ".join([f"{name:<{widths[0]}}", *aligned]))


def readable_bytes(count: float) -> str:
    """Write a number of bytes as a person reads it, in powers of ten: ``5.7 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
