"""A log's workloads, records and task results: filtered, merged and renumbered together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median_high
from typing import Any

from mvlm.compile.tuning.log.provenance import TaskResult


@dataclass(frozen=True)
class TuningRecord:
    """One measurement of a candidate.

    Attributes:
        workload: Its task's line.
        payload: Trace, seconds, target and arguments, as JSON.
    """

    workload: int
    payload: list[Any]

    @property
    def trace(self) -> list[Any]:
        """The schedule's trace."""
        trace: list[Any] = self.payload[0]
        return trace

    @property
    def seconds(self) -> list[float]:
        """The samples."""
        return [float(value) for value in self.payload[1]]

    @property
    def median(self) -> float:
        """The median of the samples."""
        return median_high(self.seconds)

    @property
    def line(self) -> str:
        """The record's line in the file."""
        return json.dumps([self.workload, self.payload], separators=(",", ":"))


@dataclass(frozen=True)
class Database:
    """The content of a log.

    Attributes:
        workloads: The lines of the workloads.
        records: The records, in the order of their lines.
        results: By the task's digest; they refer to workloads and records by line.
    """

    workloads: tuple[str, ...] = ()
    records: tuple[TuningRecord, ...] = ()
    results: Mapping[str, TaskResult] = field(default_factory=dict)

    def records_of(self, key: str) -> list[tuple[int, TuningRecord]]:
        """Return a task's records with their lines, in the order in which they were measured."""
        result = self.results.get(key)
        if result is None:
            return []
        return [
            (line, record)
            for line, record in enumerate(self.records)
            if record.workload == result.workload
        ]

    def select(
        self, has_workload: Callable[[int], bool], has_record: Callable[[int], bool]
    ) -> Database:
        """Keep some workloads and records; results that refer to others are dropped."""
        workloads = [line for line in range(len(self.workloads)) if has_workload(line)]
        new_workload = {old: new for new, old in enumerate(workloads)}
        records = [
            line
            for line, record in enumerate(self.records)
            if has_record(line) and record.workload in new_workload
        ]
        new_record = {old: new for new, old in enumerate(records)}
        results = {
            key: dataclasses.replace(
                result,
                workload=new_workload[result.workload],
                record=None if result.record is None else new_record[result.record],
            )
            for key, result in self.results.items()
            if result.workload in new_workload
            and (result.record is None or result.record in new_record)
        }
        return Database(
            tuple(self.workloads[old] for old in workloads),
            tuple(
                dataclasses.replace(
                    self.records[old], workload=new_workload[self.records[old].workload]
                )
                for old in records
            ),
            results,
        )

    def merge(self, other: Database) -> Database:
        """Return the union; of two results of a task, the later one."""
        workloads = list(self.workloads)
        new_workload = {}
        for old, workload in enumerate(other.workloads):
            if workload not in workloads:
                workloads.append(workload)
            new_workload[old] = workloads.index(workload)
        records = list(self.records)
        known = {record.line: line for line, record in enumerate(records)}
        new_record = {}
        for old, record in enumerate(other.records):
            moved = dataclasses.replace(record, workload=new_workload[record.workload])
            if moved.line not in known:
                known[moved.line] = len(records)
                records.append(moved)
            new_record[old] = known[moved.line]
        results = dict(self.results)
        for key, result in other.results.items():
            moved_result = dataclasses.replace(
                result,
                workload=new_workload[result.workload],
                record=None if result.record is None else new_record[result.record],
            )
            mine = results.get(key)
            if mine is None or mine.date < result.date:
                results[key] = moved_result
        return Database(tuple(workloads), tuple(records), results)
