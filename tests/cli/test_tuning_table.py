"""What is shown of a tuning run while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live

from mvlm.cli.shared.tuning_table import _Table, watching
from mvlm.compile.tuning.progress import Progress, TaskProgress

SEARCHED = TaskProgress("linear_a", 24, 32, 1e-3, 9e-4, None)
KEPT = TaskProgress("linear_b", 1, 16, 1e-3, 9e-4, 0.08)
STAYS = TaskProgress("attention", 1, 16, 2e-3, 2e-3, 0.0)
UNMEASURED = TaskProgress("pool", 1, 0, None, None, None)


def progress(step: str, *tasks: TaskProgress, devices: int = 1) -> Progress:
    return Progress(step, 48, 1000, tasks, devices, seconds_left=125.0)


def shown(*tasks: TaskProgress, note: str = "", devices: int = 1) -> str:
    """Draw a table, end, and return everything that the terminal got, line by line."""
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        table = _Table(live, lambda: None)
        table.progress(progress("search", *tasks, devices=devices))
        live.refresh()
        if note:
            table.note(note)
    return file.getvalue()


def test_tasks_by_their_share_with_what_came_of_them() -> None:
    text = shown(STAYS, KEPT, UNMEASURED, SEARCHED)
    rows = [" ".join(line.split()) for line in text.splitlines() if "%" in line]
    assert rows[:4] == [  # it is drawn again at the end
        "linear_a 88.9% 32 1,000.0 us 900.0 us 10.0%",
        "attention 7.4% 16 2,000.0 us 2,000.0 us default",
        "linear_b 3.7% 16 1,000.0 us 900.0 us 8.0% kept",
        "pool 0.0% 0",
    ]
    assert "searching: 48 of 1000, 2:05 left" in text


def test_many_tasks_are_summed_up() -> None:
    text = shown(*[SEARCHED] * 40, devices=3)
    assert "24 more" in text and str(24 * 32) in text
    assert "on 3 devices" in text


def test_what_people_should_know_outlives_the_table() -> None:
    text = shown(SEARCHED, note="the device is retired\x1b[2J")
    assert "the device is retired\ufffd[2J" in text and "\x1b[2J" not in text


def test_without_a_terminal_there_is_a_line_for_each_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with watching() as observer:
        observer.progress(progress("defaults", SEARCHED))
        observer.progress(progress("defaults", SEARCHED))
        observer.note("a device is retired")
        observer.progress(progress("search", SEARCHED))
    assert capsys.readouterr().err == (
        "measuring the defaults: 48 of 1000, 2:05 left\n"
        "a device is retired\n"
        "searching: 48 of 1000, 2:05 left\n"
    )
