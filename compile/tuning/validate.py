"""Validates a task's best candidates: each is re-measured against the default, and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mvlm.compile.tuning.builder import Builder
from mvlm.compile.tuning.runner import Runner
from mvlm.compile.tuning.significance import REPEAT, Comparison, compare
from mvlm.compile.tuning.task_record import TaskRecord
from mvlm.compile.tuning_log import TaskResult, utc_now

# The number of candidates that are re-measured, and the time relative to the default's below which
# a candidate is promising.
_FINALISTS, PROMISING_RATIO = 3, 0.997


class Validator:
    """Decides which candidate of a task is kept.

    Args:
        builder: Builds candidates of earlier runs.
        runner: Measures candidates.
        note: Called with messages for the user.
    """

    def __init__(self, builder: Builder, runner: Runner, note: Callable[[str], None]) -> None:
        self._builder, self._runner, self._note = builder, runner, note

    def validate(self, record: TaskRecord, previous: TaskResult | None) -> TaskResult:
        """Return a task's result: its fastest candidate that is significantly faster and correct.

        The incumbent, which won in an earlier run, is kept unless another candidate wins or the
        incumbent is now significantly slower: a busy machine may hide its gain.

        Args:
            record: The task, with what was measured.
            previous: Its result in an earlier run, or None.

        Raises:
            JobFailedError: A candidate cannot be run.
            NoDeviceError: No device is left.
        """
        incumbent = None
        if previous is not None and previous.record in record.measured:
            incumbent = previous.record
        compared = self._compare(record, incumbent)
        for comparison, line, library in compared:
            is_kept = line == incumbent and not comparison.loses
            if not (comparison.wins or is_kept):
                continue
            error = self._runner.error(record.task, library, record.unscheduled_library)
            if error > 1:
                self._note(f"{record.task.name}: a faster schedule computes a wrong result")
            elif comparison.wins:
                return _result(record, previous, comparison, line, error)
            else:
                assert previous is not None
                return dataclasses.replace(previous, trials=previous.trials + record.new_trials)
        return _result(record, previous, compared[0][0] if compared else None)

    def _compare(
        self, record: TaskRecord, incumbent: int | None
    ) -> list[tuple[Comparison, int, Path]]:
        """Re-measure the finalists, interleaved with the default; return the fastest first."""
        finalists = self._finalists(record, incumbent)
        if not finalists:
            return []
        assert record.default_library is not None
        libraries = [record.default_library, *finalists.values(), record.default_library]
        times = self._runner.measure(record.task, libraries, REPEAT).result()
        default, *candidates, again = times
        comparisons = [compare(default, each, again) for each in candidates]
        compared = [
            (comparison, line, library)
            for comparison, (line, library) in zip(comparisons, finalists.items(), strict=True)
        ]
        return sorted(compared, key=lambda each: -each[0].gain)

    def _finalists(self, record: TaskRecord, incumbent: int | None) -> dict[int, Path]:
        """Return the libraries of promising candidates and of the incumbent, by line in the log.

        The incumbent is always re-measured: best-of-N is biased by noise, the more so the larger N.
        """
        assert record.default_seconds is not None
        limit = record.default_seconds * PROMISING_RATIO
        ordered = sorted(record.measured.items(), key=lambda item: item[1].seconds)
        lines = [
            line
            for line, measured in ordered
            if measured.seconds < limit and measured.candidate.config != record.task.default_config
        ][:_FINALISTS]
        if incumbent is not None and incumbent not in lines:
            lines.append(incumbent)
        libraries = {line: record.measured[line].built_library for line in lines}
        missing = [line for line, library in libraries.items() if library is None]
        if missing:
            modules = [record.measured[line].candidate.schedule.mod for line in missing]
            built = self._builder.build(modules)
            libraries |= {line: each.path for line, each in zip(missing, built, strict=True)}
        return {line: library for line, library in libraries.items() if library is not None}


def _result(
    record: TaskRecord,
    previous: TaskResult | None,
    comparison: Comparison | None,
    line: int | None = None,
    error: float | None = None,
) -> TaskResult:
    """Return a task's result: the candidate of a line of the log, or the default."""
    assert record.default_seconds is not None
    return TaskResult(
        name=record.task.name,
        operation=record.task.operation,
        workload=record.workload,
        trials=(previous.trials if previous else 0) + record.new_trials,
        default_seconds=comparison.default_seconds if comparison else record.default_seconds,
        tuned_seconds=comparison.seconds if comparison else None,
        gain=comparison.gain if comparison else 0.0,
        noise=comparison.noise if comparison else 0.0,
        record=line,
        error=error,
        date=utc_now(),
    )
