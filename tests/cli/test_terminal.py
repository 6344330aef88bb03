"""What goes to a terminal, through every road that text takes there."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from rich.console import Console

from mvlm.bench.device_report import _word
from mvlm.cli.app import run
from mvlm.cli.shared import compare, progress, run_table, tuning_table
from mvlm.cli.shared.answers import stream_answer
from mvlm.cli.shared.rich_text import literal
from mvlm.cli.shared.terminal import (
    cell_width,
    show,
    show_columns,
    show_dim,
    show_table,
    warn,
)
from mvlm.compile.jobs.html_report import _escape
from mvlm.compile.tuning.progress import TaskProgress
from mvlm.runtime.artifact.json_object import JsonObject
from tests.cli.command_line import mvlm
from tests.sentences import SENTENCES

MARKUP = "[red]models[/red]/[bold"
COMMANDS = "\x1b[2J\x9b1m\u202e"


class Screen(io.StringIO):
    """A standard stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@contextmanager
def on_terminal() -> Iterator[Screen]:
    """Within the block, standard output and standard error are one terminal."""
    screen = Screen()
    with (
        mock.patch("sys.stdout", screen),
        mock.patch("sys.stderr", screen),
        mock.patch.dict("os.environ", {"TERM": "dumb", "COLUMNS": "160"}),
    ):
        yield screen


class Streamed:
    """A generation that comes cut between any two characters."""

    dropped_turns = 0
    completion = None

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return iter(self._text)


@pytest.mark.parametrize("name", SENTENCES)
def test_terminal_shows_text_unchanged(name: str) -> None:
    sentence = SENTENCES[name]
    generation: Any = Streamed(sentence)
    with on_terminal() as screen:
        stream_answer(generation)
        show(sentence)
        show_dim(sentence)
        warn(sentence)
        show_table([("text", sentence)])
    assert screen.getvalue().count(sentence) == 5
    assert literal(sentence).plain == sentence


def test_terminal_control_sequences_are_replaced() -> None:
    with on_terminal() as screen:
        show(COMMANDS)
        show_dim(COMMANDS)
        warn(COMMANDS)
        show_table([(COMMANDS, COMMANDS)])
        show_columns([(COMMANDS, COMMANDS)])
        compare._show_grid([(COMMANDS, COMMANDS), (COMMANDS, COMMANDS)])
    assert not set(screen.getvalue()) & {"\x1b", "\x9b", "\u202e"}
    assert screen.getvalue().count("\ufffd[2J\ufffd1m\ufffd") == 11


def test_piped_output_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    show(COMMANDS)
    assert capsys.readouterr().out == COMMANDS + "\n"


def test_terminal_errors_and_tracebacks_are_made_safe(tmp_path: Path) -> None:
    name = "a  b\u00a0\u200c\u3000c\x1b[31m"
    result = mvlm("inspect", tmp_path / name, "--debug")
    assert "\x1b" not in result.stderr and "Traceback" in result.stderr
    assert str(tmp_path / "a  b\u00a0\u200c\u3000c\ufffd[31m") in result.stderr.splitlines()[-1]


def _task(name: str) -> TaskProgress:
    return TaskProgress(
        name=name, weight=1, trials=1, default_seconds=None, best_seconds=None, gain=None
    )


def test_rich_reads_no_markup_in_what_it_is_given() -> None:
    table = run_table._Table()
    step: Any = SimpleNamespace(key="k", name=MARKUP)
    state: Any = SimpleNamespace(state="failed", seconds=1.0, started=None, note=MARKUP)
    table.update(step, state)
    watched: Any = SimpleNamespace(tasks=[_task(MARKUP)])
    with on_terminal() as screen:
        console = Console()
        console.print(tuning_table._table(watched))
        console.print(table.draw())
        compare._show_grid([(MARKUP, "ours"), (MARKUP, "1")])
    assert screen.getvalue().count(MARKUP) == 5


def test_bars_and_spinners_read_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 3600)
    with on_terminal() as screen:
        with progress.progress_bars() as update:
            update(f"{MARKUP}{COMMANDS}", 0, 2)
            update(f"{MARKUP}{COMMANDS}", 2, 2)
        spinner = progress._DelayedSpinner(MARKUP)
        spinner._start()
        shown = str(spinner._status.status)
        spinner.stop()
    assert f"{MARKUP}\ufffd[2J" in screen.getvalue()
    assert "\x9b" not in screen.getvalue()
    assert shown == MARKUP


def test_columns_are_aligned_by_the_cells_that_text_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["abc", "猫", "이름", "e\u0301", "क\u200dष"]
    show_table([(name, "|") for name in names])
    show_columns([(name, f"{name}|") for name in names])
    lines = capsys.readouterr().out.splitlines()
    widths = [cell_width(line.partition("|")[0]) for line in lines]
    assert set(widths[: len(names)]) == {4 + 2}
    assert len(set(widths[len(names) :])) == 1


def test_terminal_cell_cannot_pass_for_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([("model", "x\nverified  yes"), ("  files", "1")])
    assert capsys.readouterr().out.splitlines() == ["model    x verified  yes", "  files  1"]


def test_html_and_device_reports_use_the_terminal_rule() -> None:
    for sentence in SENTENCES.values():
        assert _escape(sentence) == sentence
    assert _escape(f"<b>{COMMANDS}") == "&lt;b&gt;\ufffd[2J\ufffd1m\ufffd"
    document = JsonObject({"name": "नि\u200cक | \x1b[1m"}, "report.json")
    assert _word(document, "name") == "नि\u200cक   \ufffd[1m"


def test_help_does_not_import_rich() -> None:
    heavy = {name for name in sys.modules if name.startswith("rich")}
    assert run(["--help"]) == 0
    assert {name for name in sys.modules if name.startswith("rich")} == heavy
