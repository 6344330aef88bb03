"""What the verbs of ``mvlm jobs`` share: the store, a run, and a run's jobs by their names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.terminal import cell_width, padded, readable_bytes, show, show_table
from mvlm.cli.shared.user_path import store_url
from mvlm.runtime.terminal_text import one_line

if TYPE_CHECKING:
    from mvlm.compile.jobs.states import MatrixRun, StepEntry

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        parser=store_url,
        metavar="URL",
        help="The store: a folder, or a URL that fsspec supports (file://, s3://).",
        show_default=False,
    ),
]
RunName = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run, or the beginning of its name; default: the latest."),
]


def find_step(run: MatrixRun, name: str) -> StepEntry:
    """Return a step of a run by its name, or by the beginning of its key.

    Raises:
        UsageError: None is meant, or several are.
    """
    from difflib import get_close_matches

    from mvlm.runtime.errors import UsageError

    named = [step for step in run.steps if step.name == name]
    meant = named or [step for step in run.steps if step.key.startswith(name)]
    if len(meant) != 1:
        close = get_close_matches(name, [step.name for step in run.steps], 1)
        raise UsageError(
            f"no job of run {run.id} is meant",
            expected=close[0] if close else f"one of its {len(run.steps)} steps",
            found=f"{name!r}, which {len(meant)} keys begin with" if meant else repr(name),
            fix="`mvlm jobs status` lists them.",
        )
    return meant[0]


def show_run(report: dict[str, Any]) -> None:
    """Print a run: what it is, and a line for each of its steps."""
    counts = ", ".join(f"{count} {state}" for state, count in report["counts"].items() if count)
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report["started"]))
    state = report["state"]
    if state == "lost":
        state = "lost: its process is gone or silent; running the matrix again goes on with it"
    show_table(
        [
            ("run", report["run"]),
            ("state", state),
            ("jobs", counts),
            ("engine", report["engine"]),
            ("started", begun),
            ("took", f"{report['seconds']:.1f} s"),
        ]
    )
    show("")
    steps = [*report["weights"], *report["jobs"]]
    width = max((cell_width(one_line(step["name"])) for step in steps), default=0)
    for step in steps:
        name = padded(one_line(step["name"]), width)
        show(f"{name}  {one_line(step_line(step))}".rstrip(" "))


def step_line(step: dict[str, Any]) -> str:
    """Write what has become of a step: its state, time, memory, size and note."""
    found = (
        f"{step['state']:<9}",
        "" if step["seconds"] is None else f"{step['seconds']:.1f} s",
        "" if step["peak_bytes"] is None else readable_bytes(step["peak_bytes"]),
        "" if step["result_bytes"] is None else readable_bytes(step["result_bytes"]),
    )
    state, seconds, memory, size = found
    tries = f"{step['attempts']} tries" if step["attempts"] > 1 else ""
    line = f"{state} {seconds:>8} {memory:>9} {size:>9}  "
    return line + "; ".join(filter(None, (tries, step["note"])))
