"""Merging and pruning logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mvlm.compile.tuning_log.paths import PROVENANCE_FILE
from mvlm.compile.tuning_log.provenance import Provenance
from mvlm.compile.tuning_log.tuning_database import Log, TuningDatabase, read_log
from mvlm.runtime.errors import UsageError


def merge_logs(folders: Sequence[Path], output: Path) -> Log:
    """Merge logs of one target.

    Args:
        folders: The logs.
        output: The merged log; it may be one of them, or not exist yet.

    Raises:
        UsageError: Target, CPU, threads or TVM version differ, or `output` is another folder.
        ArtifactError: One cannot be read.
    """
    paths = list(dict.fromkeys(path.resolve() for path in folders))
    exists = (output / PROVENANCE_FILE).exists()
    if not exists and output.is_dir() and any(output.iterdir()):
        raise UsageError(f"{output} is in the way", expected="a log, or nothing", found="a folder")
    if exists and output.resolve() not in paths:
        paths.insert(0, output.resolve())
    logs = [read_log(path) for path in paths]
    first = logs[0]
    for other in logs[1:]:
        _check_same_key(first, other)
    database = first.contents
    for other in logs[1:]:
        database = database.merge(other.contents)
    runs = {
        (run.date, run.model, run.seed, run.trials): run
        for log in logs
        for run in log.provenance.runs
    }
    provenance = dataclasses.replace(
        first.provenance,
        runs=tuple(runs[key] for key in sorted(runs)),
        results=database.results,
    )
    with TuningDatabase(output) as log:
        if exists:
            log.resume(read_log(output))
        log.rewrite(provenance, database)
    return read_log(output)


def prune_log(folder: Path, keep: int) -> tuple[int, int]:
    """Keep the fastest records of each task, its default's and its winner's.

    Returns:
        The number of records before and after.

    Raises:
        ArtifactError: The folder is not a log, or cannot be read.
    """
    read_log(folder)  # before the lock, which would make a folder where there is no log
    with TuningDatabase(folder) as log:
        log.resume(read_log(folder))
        by_task: dict[int, list[int]] = {}
        for line, record in enumerate(log.contents.records):
            by_task.setdefault(record.workload, []).append(line)
        kept = {
            result.record for result in log.contents.results.values() if result.record is not None
        }
        for lines in by_task.values():
            kept.add(lines[0])  # the default, which is measured first
            kept.update(sorted(lines, key=lambda line: log.contents.records[line].median)[:keep])
        before = len(log.contents.records)
        database = log.contents.select(lambda _: True, kept.__contains__)
        assert log.provenance is not None
        log.rewrite(log.provenance, database)
        return before, len(database.records)


def _check_same_key(one: Log, other: Log) -> None:
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
