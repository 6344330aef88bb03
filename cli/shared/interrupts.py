"""Ctrl-C, SIGTERM and SIGHUP where Python's own handling of them is not enough.

SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that one path removes staging folders
and ends child processes; :func:`termination_signal` tells them apart.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_received: signal.Signals | None = None


@contextmanager
def termination_signals() -> Iterator[None]:
    """Within the block, let the first SIGTERM or SIGHUP raise KeyboardInterrupt.

    Further ones are ignored: they must not interrupt the clean-up. A signal that is ignored
    already, as `nohup` does with SIGHUP, stays ignored.
    """
    global _received
    _received = None
    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        global _received
        if _received is None:
            _received = signal.Signals(number)
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in _ENDING}
    handled = [number for number in _ENDING if previous[number] is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number])


def termination_signal() -> signal.Signals | None:
    """Return the SIGTERM or SIGHUP that has ended this command, or None."""
    return _received


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
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Within the block, remember a Ctrl-C, or a signal that ends us, that compiled code swallows.

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
        if interrupted or termination_signal():
            raise KeyboardInterrupt

    with _handling(interrupt):
        yield check


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
