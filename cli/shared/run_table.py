"""A matrix of jobs while it runs: a table on a terminal, else a line for each that ends."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mvlm.cli.shared.terminal import is_terminal, warn

if TYPE_CHECKING:
    from mvlm.compile.jobs.plan import Step
    from mvlm.compile.jobs.states import StepState

# Called with a step and what has become of it.
Observer = Callable[["Step", "StepState"], None]

_MOST_ROWS = 12
_COLORS = {"running": "yellow", "failed": "red", "queued": "dim"}


@contextmanager
def run_table() -> Iterator[Observer]:
    """Yield a function that shows what becomes of the steps, on standard error."""
    if not is_terminal(sys.stderr):
        yield _note
        return
    from rich.console import Console
    from rich.live import Live

    table = _Table()
    with Live(
        console=Console(stderr=True),
        get_renderable=table.draw,
        refresh_per_second=4,
        transient=True,
    ):
        yield table.update


def _note(step: Step, state: StepState) -> None:
    if state.state in ("done", "failed", "cancelled") or "tried again" in state.note:
        seconds = "" if state.seconds is None else f" {state.seconds:.1f} s"
        warn(f"{state.state:<9} {step.name}{seconds}" + (f"  {state.note}" if state.note else ""))


class _Table:
    def __init__(self) -> None:
        self._steps: dict[str, tuple[Step, StepState]] = {}

    def update(self, step: Step, state: StepState) -> None:
        self._steps[step.key] = (step, state)

    def draw(self) -> Any:
        """Draw what runs, then what failed or is tried again, and count the rest."""
        from rich.console import Group
        from rich.table import Table

        from mvlm.cli.shared.rich_text import literal

        steps = list(self._steps.values())
        counts = Counter(state.state for _, state in steps)
        shown = [pair for pair in steps if pair[1].state == "running"]
        shown += [pair for pair in steps if pair[1].state == "failed"]
        shown += [pair for pair in steps if pair[1].state == "queued" and pair[1].note]
        table = Table.grid(padding=(0, 2))
        for step, state in shown[:_MOST_ROWS]:
            style = _COLORS.get(state.state, "")
            cells = (state.state, step.name, _elapsed(state), state.note)
            table.add_row(*(literal(cell, style, ellipsis=True) for cell in cells))
        line = ", ".join(f"{count} {state}" for state, count in counts.items())
        return Group(table, literal(f"{len(steps)} steps: {line}"))


def _elapsed(state: StepState) -> str:
    if state.state == "running" and state.started is not None:
        return f"{time.time() - state.started:.0f} s"
    return "" if state.seconds is None else f"{state.seconds:.1f} s"
