"""What is shown of a matrix while it runs."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from mvlm.cli.shared.run_table import _Table, run_table
from mvlm.compile.jobs.messages import ARTIFACT
from mvlm.compile.jobs.states import StepState
from tests.compile.jobs.fakes import fake_step


def drawn(table: _Table) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table.draw())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_run_table_shows_running_and_failed_jobs() -> None:
    table = _Table()
    table.update(fake_step(ARTIFACT, "one"), StepState("running", 1, started=time.time() - 7))
    table.update(fake_step(ARTIFACT, "two"), StepState("failed", 1, note="no such tensor\x1b[2J"))
    table.update(fake_step(ARTIFACT, "three"), StepState("queued"))
    table.update(fake_step(ARTIFACT, "four"), StepState("queued", note="waits for another"))
    text = drawn(table)
    for part in ("one", "7 s", "two", "no such tensor", "four", "waits for another", "4 steps: "):
        assert part in text
    assert "three" not in text and "\x1b" not in text
    for index in range(50):
        table.update(fake_step(ARTIFACT, f"more{index}"), StepState("running", 1))
    assert drawn(table).count("\n") < 20


def test_run_table_without_a_terminal_prints_a_line_per_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with run_table() as observe:
        observe(fake_step(ARTIFACT, "one"), StepState("running", 1))
        observe(fake_step(ARTIFACT, "one"), StepState("done", 1, seconds=2.5))
        observe(fake_step(ARTIFACT, "two"), StepState("queued", 1, note="tried again: killed"))
    assert capsys.readouterr().err == "done      one 2.5 s\nqueued    two  tried again: killed\n"
