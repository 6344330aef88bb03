"""``mvlm jobs cancel``: ask a run to end."""

from __future__ import annotations

from mvlm.cli.shared.jobs import RunName, StoreUrl
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_json

EXAMPLES = (
    "mvlm jobs cancel --store file:///srv/mvlm",
    "mvlm jobs cancel 20261126-0411 --store s3://bucket/mvlm",
)


def command(store: StoreUrl, run: RunName = None, json: Json = False, debug: Debug = False) -> None:
    """Ask a run to end, from any machine with access to the store.

    The run kills its workers within two seconds. Finished results stay in the store; the next run
    of the matrix continues from them.
    """
    from mvlm.compile.jobs.states import RUNNING
    from mvlm.compile.jobs.store import open_store

    opened = open_store(store)
    found = opened.runs.find(run)
    running = found.state == RUNNING
    if running:
        opened.runs.cancel(found)
    if json:
        show_json({"run": found.id, "asked": running, "state": found.state})
    else:
        show(f"asked {found.id} to end" if running else f"{found.id} has ended: {found.state}")
