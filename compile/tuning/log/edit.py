"""Merging and pruning logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mvlm.compile.tuning.log.files import FILE
from mvlm.compile.tuning.log.folder import Log, WritableLog, read_log
from mvlm.compile.tuning.log.provenance import Provenance
from mvlm.runtime.errors import UsageError


def merge_logs(folders: Sequence[Path], output: Path) -> Log:
    """Put logs of one target together.

    Args:
        folders: The logs.
        output: The log that gets them all; it may be one of them, or not be there yet.

    Raises:
        UsageError: They are not about the same kernels and device, or something else is at output.
        ArtifactError: One cannot be read.
    """
    places = list(dict.fromkeys(path.resolve() for path in folders))
    is_there = (output / FILE).exists()
    if not is_there and output.is_dir() and any(output.iterdir()):
        raise UsageError(f"{output} is in the way", expected="a log, or nothing", found="a folder")
    if is_there and output.resolve() not in places:
        places.insert(0, output.resolve())
    logs = [read_log(place) for place in places]
    first = logs[0]
    for other in logs[1:]:
        _check_alike(first, other)
    tables = first.tables
    for other in logs[1:]:
        tables = tables.join(other.tables)
    runs = {
        (run.date, run.model, run.seed, run.trials): run
        for log in logs
        for run in log.provenance.runs
    }
    provenance = dataclasses.replace(
        first.provenance, runs=tuple(runs[key] for key in sorted(runs)), outcomes=tables.outcomes
    )
    with WritableLog(output) as log:
        if is_there:
            log.take_over(read_log(output))
        log.replace(provenance, tables)
    return read_log(output)


def prune_log(folder: Path, keep: int) -> tuple[int, int]:
    """Keep the fastest records of each task, and what its outcome rests on.

    Returns:
        How many records there were, and how many are left.

    Raises:
        ArtifactError: The folder is no log, or cannot be read.
    """
    read_log(folder)  # before the lock, which would make a folder where there is no log
    with WritableLog(folder) as log:
        log.take_over(read_log(folder))
        by_task: dict[int, list[int]] = {}
        for place, record in enumerate(log.tables.records):
            by_task.setdefault(record.workload, []).append(place)
        kept = {
            outcome.record for outcome in log.tables.outcomes.values() if outcome.record is not None
        }
        for places in by_task.values():
            kept.add(places[0])  # the default, which is measured first
            kept.update(sorted(places, key=lambda place: log.tables.records[place].median)[:keep])
        before = len(log.tables.records)
        tables = log.tables.choose(lambda _: True, kept.__contains__)
        assert log.provenance is not None
        log.replace(log.provenance, tables)
        return before, len(tables.records)


def _check_alike(one: Log, other: Log) -> None:
    for what, mine, theirs in (
        ("target", one.provenance.target, other.provenance.target),
        ("CPU", _options(one.provenance), _options(other.provenance)),
        ("threads", one.provenance.threads, other.provenance.threads),
        ("emulated", one.provenance.is_emulated, other.provenance.is_emulated),
        ("TVM", _tvm(one.provenance), _tvm(other.provenance)),
    ):
        if mine != theirs:
            raise UsageError(
                f"{other.folder} cannot be merged with {one.folder}: they differ in {what}",
                expected=str(mine)[:200],
                found=str(theirs)[:200],
            )


def _options(provenance: Provenance) -> dict[str, object]:
    return dict(provenance.options)


def _tvm(provenance: Provenance) -> str | None:
    return provenance.versions.get("apache-tvm")
