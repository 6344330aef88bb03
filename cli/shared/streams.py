"""Standard streams as a caller may have left them: closed, full, or without a reader.

A closed descriptor is a trap: the next file that is opened gets its number, and what is printed
then goes into that file. So each is opened again before anything else is.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mvlm.runtime.errors import MvlmError


class StreamError(MvlmError):
    """Standard input cannot be read, or standard output cannot be written."""


class OutputError(StreamError):
    """The result cannot be written to standard output."""


class _Output(io.TextIOWrapper):
    """Standard output, whose errors say that they are its own."""

    def write(self, text: str) -> int:
        with _named("standard output cannot be written", OutputError):
            return super().write(text)

    def flush(self) -> None:
        with _named("standard output cannot be written", OutputError):
            super().flush()


def prepare_descriptors() -> None:
    """Open standard streams that are closed, and let standard output name itself in errors.

    Standard input and output are opened for the other direction, so that using one is an error that
    says so; standard error swallows what is printed.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one: those below are open by now.
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    given = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(given, io.TextIOWrapper):
        encoding, errors, line_buffering = given.encoding, given.errors, given.line_buffering
        sys.stdout = sys.__stdout__ = _Output(  # type: ignore[misc]
            given.detach(), encoding, errors, line_buffering=line_buffering
        )


@contextmanager
def reading_input() -> Iterator[None]:
    """Within the block, say of an error that it is standard input's.

    Raises:
        StreamError: The block could not read it.
    """
    with _named("standard input cannot be read", StreamError):
        yield


def abandon_output() -> None:
    """Let what is still to be written to standard output go nowhere: it cannot be written."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def _named(problem: str, kind: type[StreamError]) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader went away, which is its right
        raise
    except OSError as error:
        raise kind(problem, found=error.strerror) from None
