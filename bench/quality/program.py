"""The program: measures the rows that are asked for, and writes the tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from mvlm.bench.docs_table import write_table
from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.quality.bundled_model import CANDIDATES, BundledFigures, BundledStudy
from mvlm.bench.quality.facts import facts
from mvlm.bench.quality.ggml import ggml_rows
from mvlm.bench.quality.ours import our_rows
from mvlm.bench.quality.reference_logits import prepare_bench
from mvlm.bench.quality.reference_model import find_or_make_checkpoint
from mvlm.bench.quality.results import Results
from mvlm.bench.quality.row import Bench, Row, RowFigures, row_name
from mvlm.bench.quality.speeds import Speed, measure_speeds, read_speeds
from mvlm.bench.quality.table import bundled_table, quality_table
from mvlm.bench.quality.texts import judged_sequences, judged_text
from mvlm.compile.cache_folder import cache_folder
from mvlm.models.quantization import DEFAULT_SCHEME
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import MvlmError, UsageError

DOCUMENT = Path("docs/quantization.md")

_FOLDER, _SPEEDS = "quality", "speeds.json"
_INTERRUPTED = 130
_ROUNDS = 5


class Task(Protocol):
    """A row of one of the tables, with what measures it."""

    @property
    def name(self) -> str:
        """On the command line."""

    @property
    def results(self) -> Results[Any]:
        """Where its figures are kept."""

    def key(self) -> str:
        """Name all that the figures depend on."""

    def measure(self) -> Any:
        """Return the figures, a dataclass."""


@dataclass(frozen=True)
class RowTask:
    """A row of SmolLM2."""

    row: Row
    bench: Bench

    @property
    def name(self) -> str:
        """The row's."""
        return row_name(self.row)

    @property
    def results(self) -> Results[RowFigures]:
        """Those of all rows."""
        return Results(self.bench.folder / "rows", RowFigures.from_json)

    def key(self) -> str:
        """The row's."""
        return self.row.key(self.bench)

    def measure(self) -> RowFigures:
        """Make the model and judge it."""
        return self.row.measure(self.bench)


@dataclass
class Run:
    """What a run has found.

    Attributes:
        figures: By the rows' names.
        failures: Why rows could not be measured.
        missing: Names of rows that were neither asked for nor measured before.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def run_tasks(tasks: Sequence[Task], patterns: Sequence[str]) -> Run:
    """Measure what is asked for and was not measured before, and find what was.

    A row that fails does not keep the others from being measured.

    Args:
        tasks: All rows.
        patterns: Names of the rows to measure, with * and ?; all if there are none.

    Raises:
        UsageError: No row has such a name.
    """
    asked = [task.name for task in tasks if is_asked(task.name, patterns)]
    if not asked:
        names = ", ".join(task.name for task in tasks)
        raise UsageError("--rows", expected=f"one of {names}", found=", ".join(patterns))
    run = Run()
    for task in tasks:
        try:
            key = task.key()
            figures = task.results.find(key)
            if figures is None and task.name in asked:
                began = time.monotonic()
                figures = task.measure()
                task.results.keep(key, figures)
                _tell(f"{task.name}: {figures}, {time.monotonic() - began:.0f} s")
        except MvlmError as error:
            run.failures.append(f"{task.name}: {error}")
            _tell(f"error: {run.failures[-1]}")
            continue
        if figures is None:
            run.missing.append(task.name)
        else:
            run.figures[task.name] = figures
    return run


def is_asked(name: str, patterns: Sequence[str]) -> bool:
    """Whether a row is among those that are asked for."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _smollm2_tasks(folder: Path, threads: int) -> list[RowTask]:
    checkpoint = find_or_make_checkpoint(folder, _tell)
    sequences = judged_sequences(judged_text(folder), checkpoint)
    bench = prepare_bench(folder, checkpoint, sequences, threads, _tell)
    rows: list[Row] = [*our_rows(), *ggml_rows()]
    return [RowTask(row, bench) for row in rows]


def _speeds(options: argparse.Namespace, folder: Path, rows: Sequence[Row]) -> dict[str, Speed]:
    """Return the speeds that were asked for, or else those that were measured last."""
    kept = folder / _SPEEDS
    if options.speed is not None:
        asked = [row for row in rows if is_asked(row_name(row), options.rows)]
        reports = measure_speeds(options.speed, asked, folder, _ROUNDS, _tell)
        with atomic_write(kept) as file:
            file.write(json.dumps(reports, indent=1).encode())
    if options.speed_report is not None:
        return read_speeds(options.speed_report)
    return read_speeds(kept) if kept.is_file() else {}


def _run(options: argparse.Namespace) -> int:
    folder, threads = cache_folder() / _FOLDER, len(os.sched_getaffinity(0))
    folder.mkdir(parents=True, exist_ok=True)
    rows = _smollm2_tasks(folder, threads)
    with closing(BundledStudy(options.scenes, folder / "bundled")) as study:
        bundled = study.tasks(CANDIDATES)
        run = run_tasks([*rows, *bundled], options.rows)
    speeds = _speeds(options, folder, [task.row for task in rows])
    known = [(task.row, run.figures[task.name]) for task in rows if task.name in run.figures]
    answers: list[tuple[Any, BundledFigures]] = [
        (task.candidate, run.figures[task.name]) for task in bundled if task.name in run.figures
    ]
    table = quality_table(known, speeds, f"{OURS} {DEFAULT_SCHEME}")
    print(table, bundled_table(answers), sep="\n")
    if options.json is not None:
        figures = {name: asdict(found) for name, found in run.figures.items()}
        options.json.write_text(json.dumps(figures, indent=1))
    if options.write:
        if lacking := run.missing + run.failures:
            raise UsageError(
                f"{DOCUMENT} is not written", expected="all rows", found="no " + "; ".join(lacking)
            )
        for mark, text in (
            ("quality", table),
            ("quality-facts", facts(threads)),
            ("quality-bundled", bundled_table(answers)),
        ):
            write_table(DOCUMENT, mark, text)
    return 1 if run.failures else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, and print the tables or put them into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m mvlm.bench.quality", description=__doc__)
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="PATTERN",
        help="measure rows with such names alone, as in 'mvlm q4a8*'; keep the others' figures",
    )
    parser.add_argument("--scenes", type=int, default=1000, help="held-out images")
    parser.add_argument(
        "--speed",
        type=Path,
        metavar="CHECKPOINT",
        help="measure the speeds of the rows' types on this model, on a quiet machine",
    )
    parser.add_argument(
        "--speed-report",
        type=Path,
        metavar="FILE",
        help="take the speeds from what `mvlm bench MODEL --peer llama.cpp --json` printed",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT}")
    options = parser.parse_args()
    try:
        sys.exit(_run(options))
    except MvlmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: finished rows are kept", file=sys.stderr)
        sys.exit(_INTERRUPTED)
