"""``mvlm jobs logs``: what the workers of a run printed."""

from __future__ import annotations

from typing import Annotated

import typer

from mvlm.cli.shared.jobs import RunName, StoreUrl, find_step
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_json

EXAMPLES = (
    "mvlm jobs logs --store file:///srv/mvlm",
    "mvlm jobs logs 20261126-0411 MobileVLM-1.7B/q4a8/host --store file:///srv/mvlm",
)


def command(
    store: StoreUrl,
    run: RunName = None,
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            help="A job's name, or the beginning of its key; default: all failed jobs.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the logs of a job, one per attempt."""
    from mvlm.compile.jobs.report import read_states
    from mvlm.compile.jobs.states import FAILED
    from mvlm.compile.jobs.store import open_store

    opened = open_store(store)
    found = opened.runs.find(run)
    if job is None:
        states = read_states(opened, found)
        steps = [step for step in found.steps if states[step.key].state == FAILED]
    else:
        steps = [find_step(found, job)]
    logs = [(step, opened.runs.log(found.id, step.key)) for step in steps]
    if json:
        entries = [{"key": step.key, "name": step.name, "log": log} for step, log in logs]
        show_json({"run": found.id, "logs": entries})
        return
    for step, log in logs:
        if job is None:
            show(f"--- {step.name}")
        show(log.rstrip("\n") or "(nothing was printed)")
