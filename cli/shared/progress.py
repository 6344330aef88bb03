"""Progress on the terminal: bars for what is counted, a spinner for what is waited for.

Both draw on standard error, and only if that is a terminal; rich is imported only then.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from mvlm.cli.shared.interrupts import deferred_interrupts
from mvlm.cli.shared.terminal import is_terminal, readable_bytes
from mvlm.runtime.progress import Progress, no_progress
from mvlm.runtime.terminal_text import one_line, printable

# What is over sooner needs no spinner.
_PATIENCE_SECONDS = 0.7


@contextmanager
def progress_bars(in_bytes: Container[str] = ()) -> Iterator[Progress]:
    """Yield a function that draws one bar for each kind of step: of ``code: link``, for `code`.

    Args:
        in_bytes: The kinds whose numbers are bytes; others are counted.
    """
    if not is_terminal(sys.stderr):
        yield no_progress
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:<20}", markup=False),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[amount]:>19}", markup=False),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    bars: dict[str, Any] = {}
    with progress.Progress(*columns, console=Console(stderr=True)) as shown_bars:

        def update(step: str, done: int, total: int) -> None:
            step = printable(one_line(step))
            kind = step.partition(":")[0]
            shown = [readable_bytes(n) if kind in in_bytes else str(n) for n in (done, total)]
            amount = "/".join(shown)
            if kind not in bars:
                bars[kind] = shown_bars.add_task(step, total=total, amount=amount)
            shown_bars.update(
                bars[kind],
                description=kind if done >= total else step,
                completed=done,
                total=total,
                amount=amount,
            )

        yield update


@contextmanager
def interruptible_progress(in_bytes: Container[str] = ()) -> Iterator[Progress]:
    """Yield a function that draws as `progress_bars` does, and first raises what was swallowed.

    See `deferred_interrupts`: for work that calls compiled code.

    Args:
        in_bytes: The kinds whose numbers are bytes; others are counted.
    """
    with progress_bars(in_bytes) as draw, deferred_interrupts() as raise_if_interrupted:

        def progress(step: str, done: int, total: int) -> None:
            raise_if_interrupted()
            draw(step, done, total)

        yield progress


@contextmanager
def waiting(message: str) -> Iterator[Callable[[], None]]:
    """Show a spinner while the block runs, from the moment that it takes long.

    Yields:
        A function that takes the spinner away before the block ends.
    """
    if not is_terminal(sys.stderr):
        yield lambda: None
        return
    spinner = _DelayedSpinner(message)
    try:
        yield spinner.stop
    finally:
        spinner.stop()


class _DelayedSpinner:
    def __init__(self, message: str) -> None:
        self._message = message
        self._lock = threading.Lock()
        self._status: Any = None
        self._stopped = False
        self._timer = threading.Timer(_PATIENCE_SECONDS, self._start)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._stopped = True
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _start(self) -> None:
        from rich.console import Console
        from rich.status import Status

        from mvlm.cli.shared.rich_text import literal

        with self._lock:
            if not self._stopped:
                self._status = Status(literal(self._message), console=Console(stderr=True))
                self._status.start()
