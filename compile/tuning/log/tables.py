"""A log's two tables and what came of each task: chosen from, joined, and renumbered together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median_high
from typing import Any

from mvlm.compile.tuning.log.provenance import Outcome


@dataclass(frozen=True)
class Measured:
    """One record.

    Attributes:
        workload: Its task's line.
        payload: Trace, seconds, target and arguments, as JSON.
    """

    workload: int
    payload: list[Any]

    @property
    def trace(self) -> list[Any]:
        """What was done to the workload."""
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
class Tables:
    """The content of a log.

    Attributes:
        workloads: The workloads' lines.
        records: The records.
        outcomes: By the task's digest; they name lines of both.
    """

    workloads: tuple[str, ...] = ()
    records: tuple[Measured, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    def of_task(self, key: str) -> list[tuple[int, Measured]]:
        """Return a task's records with their lines, in the order in which they were measured."""
        outcome = self.outcomes.get(key)
        if outcome is None:
            return []
        return [
            (place, record)
            for place, record in enumerate(self.records)
            if record.workload == outcome.workload
        ]

    def choose(
        self, has_workload: Callable[[int], bool], has_record: Callable[[int], bool]
    ) -> Tables:
        """Return what is left of some lines; outcomes whose lines are gone go with them."""
        workloads = [place for place in range(len(self.workloads)) if has_workload(place)]
        places = {old: new for new, old in enumerate(workloads)}
        records = [
            place
            for place, record in enumerate(self.records)
            if has_record(place) and record.workload in places
        ]
        lines = {old: new for new, old in enumerate(records)}
        outcomes = {
            key: dataclasses.replace(
                outcome,
                workload=places[outcome.workload],
                record=None if outcome.record is None else lines[outcome.record],
            )
            for key, outcome in self.outcomes.items()
            if outcome.workload in places and (outcome.record is None or outcome.record in lines)
        }
        return Tables(
            tuple(self.workloads[old] for old in workloads),
            tuple(
                dataclasses.replace(self.records[old], workload=places[self.records[old].workload])
                for old in records
            ),
            outcomes,
        )

    def join(self, other: Tables) -> Tables:
        """Return both; a record that is in both once, and of two outcomes the later one."""
        workloads = list(self.workloads)
        places = {}
        for old, line in enumerate(other.workloads):
            if line not in workloads:
                workloads.append(line)
            places[old] = workloads.index(line)
        records = list(self.records)
        known = {record.line: place for place, record in enumerate(records)}
        lines = {}
        for old, record in enumerate(other.records):
            moved = dataclasses.replace(record, workload=places[record.workload])
            if moved.line not in known:
                known[moved.line] = len(records)
                records.append(moved)
            lines[old] = known[moved.line]
        outcomes = dict(self.outcomes)
        for key, outcome in other.outcomes.items():
            moved_outcome = dataclasses.replace(
                outcome,
                workload=places[outcome.workload],
                record=None if outcome.record is None else lines[outcome.record],
            )
            mine = outcomes.get(key)
            if mine is None or mine.date < outcome.date:
                outcomes[key] = moved_outcome
        return Tables(tuple(workloads), tuple(records), outcomes)
