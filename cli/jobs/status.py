"""``mvlm jobs status``: what a run is doing, or has done."""

from __future__ import annotations

from mvlm.cli.shared.jobs import RunName, StoreUrl, show_run
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show_json

EXAMPLES = (
    "mvlm jobs status --store file:///srv/mvlm",
    "mvlm jobs status 20261126-0411 --store s3://bucket/mvlm --json",
)


def command(store: StoreUrl, run: RunName = None, json: Json = False, debug: Debug = False) -> None:
    """Show a run's jobs, from any machine with access to the store.

    It shows each job's state and, if it ran, its time, peak memory and the size of its result.
    """
    from mvlm.compile.jobs.report import describe_run, read_states
    from mvlm.compile.jobs.store import open_store

    opened = open_store(store)
    found = opened.runs.find(run)
    report = describe_run(
        opened, found, read_states(opened, found), opened.runs.last_renewal(found.id)
    )
    if json:
        show_json(report)
    else:
        show_run(report)
