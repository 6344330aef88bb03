"""Writes a run's reports into the store, beside the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mvlm.compile.jobs.html_report import render_html
from mvlm.compile.jobs.states import FAILED, MatrixRun, StepState
from mvlm.compile.jobs.store import Store

_SHOWN_LINES = 40


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
    failed = [key for key, state in found.items() if state.state == FAILED]
    logs = {key: _tail(store.runs.log(run.id, key)) for key in failed}
    written = {
        "json": json.dumps(report, indent=1, allow_nan=False),
        "html": render_html(report, {key: log for key, log in logs.items() if log}),
    }
    return {
        kind: store.runs.write_report(run.id, f"report.{kind}", text.encode("utf-8", "replace"))
        for kind, text in written.items()
    }


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-_SHOWN_LINES:])
