"""Ctrl-C and SIGTERM where Python's own handling of them is not enough."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Within the block, let the first Ctrl-C call `act`, and the next raise KeyboardInterrupt."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        act()

    with _handling(interrupt):
        yield


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Within the block, remember a Ctrl-C that compiled code swallows.

    KeyboardInterrupt can be raised in a Python callback of a C++ library, and such a library may
    go on as if nothing had been.

    Yields:
        A function that raises KeyboardInterrupt if there was one before.
    """
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    with _handling(interrupt):
        yield check


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Within the block, let SIGTERM, as a cluster sends it, end what runs as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.SIG_IGN:
        # Whoever started us in the background does not want Ctrl-C to reach us.
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
