"""A run's report: one document for ``--json``, ``report.json`` and ``report.html``."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mvlm.compile.jobs import states
from mvlm.compile.jobs.html_report import render_html
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS
from mvlm.compile.jobs.states import MatrixRun, StepEntry, StepState
from mvlm.compile.jobs.store import Store

# A run without a heartbeat for so long is likely dead.
SILENT_SECONDS = 60.0
LOST = "lost"
_SHOWN_LINES = 40  # of a failed step's log


def read_states(store: Store, run: MatrixRun) -> dict[str, StepState]:
    """Return the states of a run's steps by their keys.

    Raises:
        ArtifactError: A state breaks the format.
    """
    return {step.key: store.runs.state(run, step.key) for step in run.steps}


def describe_run(
    store: Store, run: MatrixRun, found: Mapping[str, StepState], last_renewal: float | None = None
) -> dict[str, Any]:
    """Return a run in plain JSON values.

    Args:
        store: Where it is kept.
        run: The run.
        found: The states of its steps.
        last_renewal: The time of its last heartbeat.
    """
    artifacts = [step for step in run.steps if step.kind == ARTIFACT]
    weights = [step for step in run.steps if step.kind == WEIGHTS]
    counts = Counter(found[step.key].state for step in artifacts)
    return {
        "run": run.id,
        "matrix": run.matrix,
        "store": store.files.url,
        "engine": run.engine,
        "state": LOST if _is_lost(run, last_renewal) else run.state,
        "owner": str(run.owner),
        "started": run.started,
        "ended": run.ended,
        "seconds": round((run.ended or time.time()) - run.started, 3),
        "counts": {state: counts[state] for state in states.STATES},
        "jobs": [_describe(step, found[step.key]) for step in artifacts],
        "weights": [_describe(step, found[step.key]) for step in weights],
    }


def write_reports(
    store: Store, run: MatrixRun, found: Mapping[str, StepState], report: dict[str, Any]
) -> dict[str, str]:
    """Write ``report.json`` and ``report.html``.

    Args:
        store: The store.
        run: The run.
        found: The states of its steps.
        report: What `report.describe_run` returns.

    Returns:
        Where they are, by their kinds: ``json`` and ``html``.

    Raises:
        StoreError: They cannot be written.
    """
    failed = [key for key, state in found.items() if state.state == states.FAILED]
    logs = {key: _tail(store.runs.log(run.id, key)) for key in failed}
    written = {
        "json": json.dumps(report, indent=1, allow_nan=False),
        "html": render_html(report, {key: log for key, log in logs.items() if log}),
    }
    return {
        kind: store.runs.write_report(run.id, f"report.{kind}", text.encode("utf-8", "replace"))
        for kind, text in written.items()
    }


def _is_lost(run: MatrixRun, last_renewal: float | None) -> bool:
    """Whether nobody seems to work on a run that has not ended."""
    if run.state != states.RUNNING or run.ended is not None:
        return False
    silent = last_renewal is not None and time.time() - last_renewal > SILENT_SECONDS
    return run.owner.is_gone or silent


def _describe(step: StepEntry, state: StepState) -> dict[str, Any]:
    return {"key": step.key, "name": step.name} | dict(step.labels) | asdict(state)


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-_SHOWN_LINES:])
