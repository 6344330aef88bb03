"""A log's workloads, records and task results: filtered, merged and renumbered together.

The lines are those of MetaSchedule's JSON database: a workload is ``[hash, base64 of the module]``,
a record ``[workload's line, [trace, seconds, target, arguments]]``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median_high
from typing import Any

from mvlm.compile.tuning_log.provenance import TaskResult

_MAX_INSTRUCTIONS = 10_000


@dataclass(frozen=True)
class TuningRecord:
    """One measurement of a candidate.

    Attributes:
        workload: Its task's line.
        payload: Trace, seconds, target and arguments, as JSON.
    """

    workload: int
    payload: list[Any]

    @classmethod
    def from_line(cls, line: str, workloads: int) -> TuningRecord:
        """Read a line of the records.

        Args:
            line: The line.
            workloads: The number of workloads.

        Raises:
            ValueError: The line is not a record of one of them.
        """
        values = _parse(line)
        if not (_is_list(values, 2) and _is_list(values[1], 4)):
            raise ValueError("not a record")
        workload, (trace, seconds, _, _) = values
        if not (_is_count(workload) and workload < workloads):
            raise ValueError(f"workload {workload!r} of {workloads}")
        if not (_is_list(trace, 2) and all(isinstance(part, list) for part in trace)):
            raise ValueError("no trace")
        if len(trace[0]) > _MAX_INSTRUCTIONS or not all(_is_list(step, 4) for step in trace[0]):
            raise ValueError("no trace")
        if not (isinstance(seconds, list) and seconds and all(map(is_time, seconds))):
            raise ValueError("no times")
        return cls(workload, values[1])

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


def check_workload(line: str) -> None:
    """Check a line of the workloads; raise ValueError if it is none."""
    values = _parse(line)
    if not (_is_list(values, 2) and all(isinstance(value, str) for value in values)):
        raise ValueError("not a workload")


def is_time(value: object) -> bool:
    """Whether a value of a JSON document is a number of seconds, above zero."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
