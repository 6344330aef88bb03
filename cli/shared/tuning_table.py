"""The live table of a tuning run; a line every 30 s where standard error is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mvlm.cli.shared.interrupts import deferred_interrupts
from mvlm.cli.shared.terminal import is_terminal, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from mvlm.compile.tuning.progress import Observer, Progress, TaskProgress

_SHOWN = 16
# Between two lines where no table is drawn.
_LINE_SECONDS = 30.0
_STEPS = {
    "defaults": "measuring the defaults",
    "search": "searching",
    "validate": "comparing the best with the defaults",
}


@contextmanager
def watching() -> Iterator[Observer]:
    """Yield an observer that draws a run's progress."""
    with deferred_interrupts() as raise_if_interrupted:
        if not is_terminal(sys.stderr):
            yield _Lines(raise_if_interrupted)
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
            yield _Table(live, raise_if_interrupted)


class _Lines:
    """Prints a line when a step begins, and then every 30 s."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check, self._printed, self._step = check, 0.0, ""

    def progress(self, progress: Progress) -> None:
        self._check()
        now = time.monotonic()
        if progress.step != self._step or now - self._printed > _LINE_SECONDS:
            self._step, self._printed = progress.step, now
            warn(_headline(progress))

    def note(self, text: str) -> None:
        warn(text)


class _Table:
    """Draws the tasks that take most of a chat turn, below the messages."""

    def __init__(self, live: Any, check: Callable[[], None]) -> None:
        self._live, self._check = live, check

    def progress(self, progress: Progress) -> None:
        self._check()
        from rich.console import Group

        from mvlm.cli.shared.rich_text import literal

        self._live.update(Group(_table(progress), literal(_headline(progress))))

    def note(self, text: str) -> None:
        from mvlm.cli.shared.rich_text import literal

        self._live.console.print(literal(text))


def _table(progress: Progress) -> Any:
    from rich import box
    from rich.table import Table

    from mvlm.cli.shared.rich_text import literal

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("kernel")
    for name in ("share", "trials", "default", "best", "gain"):
        table.add_column(name, justify="right")
    total = sum(map(_weighted_seconds, progress.tasks)) or 1.0
    ordered = sorted(progress.tasks, key=_weighted_seconds, reverse=True)
    for task in ordered[:_SHOWN]:
        table.add_row(literal(task.name), f"{_weighted_seconds(task) / total:.1%}", *_cells(task))
    if len(ordered) > _SHOWN:
        rest = ordered[_SHOWN:]
        share = sum(map(_weighted_seconds, rest)) / total
        table.add_row(f"{len(rest)} more", f"{share:.1%}", str(sum(task.trials for task in rest)))
    return table


def _cells(task: TaskProgress) -> tuple[str, ...]:
    if task.default_seconds is None or task.best_seconds is None:
        return (str(task.trials), "", "", "")
    gain = f"{1 - task.best_seconds / task.default_seconds:.1%}"
    if task.gain is not None:
        gain = f"{task.gain:.1%} kept" if task.gain else "default"
    times = (f"{1e6 * each:,.1f} us" for each in (task.default_seconds, task.best_seconds))
    return (str(task.trials), *times, gain)


def _weighted_seconds(task: TaskProgress) -> float:
    return task.weight * (task.default_seconds or 0.0)


def _headline(progress: Progress) -> str:
    text = f"{_STEPS[progress.step]}: {progress.done} of {progress.total}"
    if progress.devices > 1:
        text += f" on {progress.devices} devices"
    if progress.seconds_left:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        text += f", {minutes}:{seconds:02} left"
    return text
