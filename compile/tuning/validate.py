"""Validates a task's best candidates: each is re-measured against the default and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from mvlm.compile.tuning.builder import Builder
from mvlm.compile.tuning.log import TaskResult, TuningDatabase
from mvlm.compile.tuning.runner import Runner
from mvlm.compile.tuning.significance import REPEAT, Comparison, compare
from mvlm.compile.tuning.task_record import TaskRecord

# The number of candidates that are re-measured, and the time relative to the default's below which
# a candidate is promising.
_FINALISTS, PROMISING_RATIO = 3, 0.997


class Validator:
    """Decides which candidate of a task is kept.

    Args:
        builder: Builds candidates of earlier runs.
        stand: Measures candidates.
        log: Gets the results.
        note: Called with messages for the user.
    """

    def __init__(
        self, builder: Builder, stand: Runner, log: TuningDatabase, note: Callable[[str], None]
    ) -> None:
        self._builder, self._stand, self._log, self._note = builder, stand, log, note

    def decide(self, state: TaskRecord) -> None:
        """Judge a task's best; who won before stays unless another one wins, or it is refuted."""
        incumbent, judged = self._incumbent(state), self._judge(state)
        for verdict, line, library in judged:
            stays = line == incumbent and not verdict.loses
            if not (verdict.wins or stays):
                continue
            error = self._stand.error(state.task, library, state.plain_library)
            if error > 1:
                self._note(f"{state.task.name}: a faster schedule computes something else")
            elif verdict.wins:
                self._conclude(state, verdict, line, error)
                return
            else:
                self._conclude_again(state)
                return
        self._conclude(state, judged[0][0] if judged else None)

    def _judge(self, state: TaskRecord) -> list[tuple[Comparison, int, Path]]:
        """Let the finalists meet the default; return verdict, line and library, the best first."""
        finalists = self._finalists(state)
        if not finalists:
            return []
        assert state.default_library is not None
        libraries = [library for _, library in finalists]
        first, *tried, again = self._stand.compare(
            state.task, [state.default_library, *libraries, state.default_library], REPEAT
        )
        verdicts = [compare(first, times, again) for times in tried]
        judged = [
            (verdict, *finalist) for verdict, finalist in zip(verdicts, finalists, strict=True)
        ]
        return sorted(judged, key=lambda each: -each[0].gain)

    def _finalists(self, state: TaskRecord) -> list[tuple[int, Path]]:
        """Return lines and libraries of what looked faster than the default, and of who won last.

        Whoever won before is judged again, whatever else there is: with more candidates there are
        more that look fast by luck.
        """
        assert state.default_seconds is not None
        limit = state.default_seconds * PROMISING_RATIO
        ordered = sorted(state.found.items(), key=lambda item: item[1][0])
        hopeful = [
            (place, candidate, library)
            for place, (median, candidate, library) in ordered
            if median < limit and candidate.config != state.task.default_config
        ][:_FINALISTS]
        incumbent = self._incumbent(state)
        if incumbent is not None and incumbent not in {place for place, *_ in hopeful}:
            hopeful.append((incumbent, *state.found[incumbent][1:]))
        missing = [candidate.schedule.mod for _, candidate, library in hopeful if library is None]
        built = iter(self._builder.build(missing) if missing else [])
        found = []
        for place, _, library in hopeful:
            whole = library or next(built).path
            if whole is not None:
                found.append((place, whole))
        return found

    def _incumbent(self, state: TaskRecord) -> int | None:
        """Return the line of who won before, if it can still be made."""
        known = self._log.contents.results.get(state.task.key)
        return known.record if known is not None and known.record in state.found else None

    def _conclude_again(self, state: TaskRecord) -> None:
        """Leave a task as it was: what made it win may not show on a machine that is busy now."""
        known = self._log.contents.results[state.task.key]
        self._write_outcome(state, dataclasses.replace(known, trials=known.trials + state.trials))

    def _conclude(
        self,
        state: TaskRecord,
        verdict: Comparison | None,
        record: int | None = None,
        error: float | None = None,
    ) -> None:
        assert state.default_seconds is not None
        known = self._log.contents.results.get(state.task.key)
        result = TaskResult(
            name=state.task.name,
            operation=state.task.operation,
            workload=state.workload,
            trials=(known.trials if known else 0) + state.trials,
            default_seconds=verdict.default_seconds if verdict else state.default_seconds,
            tuned_seconds=verdict.seconds if verdict else None,
            gain=verdict.gain if verdict else 0.0,
            noise=verdict.noise if verdict else 0.0,
            record=record,
            error=error,
            date=now(),
        )
        self._write_outcome(state, result)

    def _write_outcome(self, state: TaskRecord, result: TaskResult) -> None:
        state.result = result
        results = {**self._log.contents.results, state.task.key: result}
        assert self._log.provenance is not None
        self._log.write_provenance(dataclasses.replace(self._log.provenance, results=results))


def now() -> str:
    """Return the date and time, as logs have it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
