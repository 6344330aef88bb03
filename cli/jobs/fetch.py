"""``mvlm jobs fetch``: from the store to artifacts' folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.jobs import StoreUrl, find_step
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show, show_json

if TYPE_CHECKING:
    from mvlm.compile.jobs.states import MatrixRun, StepEntry
    from mvlm.compile.jobs.store import Store

EXAMPLES = (
    "mvlm jobs fetch MobileVLM-1.7B/q4a8/host --store file:///srv/mvlm -o mobilevlm-host",
    "mvlm jobs fetch --store file:///srv/mvlm -o artifacts",
)


def command(
    store: StoreUrl,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The artifact's folder; without JOB, the folder for all of them.",
            show_default=False,
        ),
    ],
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            help="A job's name, or the beginning of its key; default: all finished jobs.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The run of the jobs; default: the latest."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy artifacts from the store, and verify each file's digest.

    Without JOB, it copies the artifacts of all finished jobs, into folders of their names.
    """
    from mvlm.compile.jobs.store import open_store
    from mvlm.compile.jobs.store.results import total_bytes

    opened = open_store(store)
    found = opened.runs.find(run)
    wanted = {output: find_step(found, job)} if job else _all(opened, found, output)
    documents = []
    with progress_bars() as progress:
        for done, (place, step) in enumerate(wanted.items()):
            progress("fetch", done, len(wanted))
            result = _result(opened, step)
            opened.fetch(result, place)
            documents.append(
                {
                    "artifact": str(place),
                    "name": step.name,
                    "digest": result.manifest.digest,
                    "bytes": total_bytes(result.files),
                }
            )
        progress("fetch", len(wanted), len(wanted))
    _show(documents, json)


def _show(documents: list[dict[str, Any]], json: bool) -> None:
    if json:
        show_json({"artifacts": documents})
        return
    for document in documents:
        show(f"{document['artifact']}  {readable_bytes(document['bytes'])}")


def _all(store: Store, run: MatrixRun, output: Path) -> dict[Path, StepEntry]:
    """Return the finished jobs of a run by the folders that they go into."""
    from mvlm.compile.jobs.messages import ARTIFACT
    from mvlm.compile.jobs.report import read_states
    from mvlm.compile.jobs.states import SUCCESSFUL

    states = read_states(store, run)
    wanted: dict[Path, StepEntry] = {}
    for step in run.steps:
        if step.kind == ARTIFACT and states[step.key].state in SUCCESSFUL:
            # Names have slashes, and a store may hold any.
            name = re.sub(r"[^\w+=,.-]+", "-", step.name).lstrip(".-")
            taken = not name or output / name in wanted
            wanted[output / (f"{name}-{step.key[:8]}" if taken else name)] = step
    return wanted


def _result(store: Store, step: StepEntry) -> Any:
    from mvlm.runtime.errors import ArtifactError

    result = store.artifact(step.key) if step.kind == "artifact" else None
    if result is None:
        raise ArtifactError(
            f"{step.name} is not in the store",
            expected="an artifact that is done",
            found="weights" if step.kind == "weights" else "none",
            fix="`mvlm jobs status` says what became of it.",
        )
    return result
