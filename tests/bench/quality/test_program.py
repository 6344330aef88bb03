"""The program's runs: what is measured, kept, found again, and told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mvlm.bench.quality.program import is_asked, run_tasks
from mvlm.bench.quality.results import Results, result_key
from mvlm.runtime.errors import MvlmError, UsageError


@dataclass(frozen=True)
class Number:
    value: int


@dataclass
class FakeTask:
    name: str
    folder: Path
    version: str = "1"
    failure: str | None = None
    measured: list[str] = field(default_factory=list)

    @property
    def results(self) -> Results[Number]:
        return Results(self.folder, lambda values: Number(**values))

    def key(self) -> str:
        return result_key(self.name, self.version)

    def measure(self) -> Number:
        if self.failure is not None:
            raise MvlmError(self.failure)
        self.measured.append(self.version)
        return Number(len(self.name))


def test_what_was_measured_is_found_again(tmp_path: Path) -> None:
    tasks = [FakeTask("one", tmp_path), FakeTask("three", tmp_path)]
    for _ in range(2):
        run = run_tasks(tasks, [])
        assert run.figures == {"one": Number(3), "three": Number(5)}
    assert [task.measured for task in tasks] == [["1"], ["1"]]


def test_what_has_changed_is_measured_again(tmp_path: Path) -> None:
    task = FakeTask("one", tmp_path)
    run_tasks([task], [])
    task.version = "2"
    run_tasks([task], [])
    assert task.measured == ["1", "2"]


def test_rows_that_are_not_asked_for_are_found_or_missing(tmp_path: Path) -> None:
    one, two, three = (FakeTask(name, tmp_path) for name in ("one", "two", "three"))
    run_tasks([two], [])
    run = run_tasks([one, two, three], ["o*"])
    assert (list(run.figures), run.missing) == (["one", "two"], ["three"])


def test_a_row_that_fails_keeps_no_other_from_being_measured(tmp_path: Path) -> None:
    tasks = [FakeTask("one", tmp_path, failure="it is not installed"), FakeTask("two", tmp_path)]
    run = run_tasks(tasks, [])
    assert run.failures == ["one: it is not installed"] and list(run.figures) == ["two"]


def test_an_unknown_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--rows: expected one of one, found four"):
        run_tasks([FakeTask("one", tmp_path)], ["four"])


def test_patterns_choose_rows() -> None:
    assert is_asked("mvlm q4a8 calibrated", ["q3*", "mvlm q4a8*"])
    assert not is_asked("mvlm q4a8 calibrated", ["mvlm q4a8"])
    assert is_asked("any", [])


@pytest.mark.parametrize("content", [None, "{", '{"other": 1}', "[]"])
def test_figures_that_cannot_be_read_are_measured_again(
    tmp_path: Path, content: str | None
) -> None:
    task = FakeTask("one", tmp_path)
    if content is not None:
        (tmp_path / f"{task.key()}.json").write_text(content)
    assert run_tasks([task], []).figures == {"one": Number(3)}
    assert task.measured == ["1"]
