"""``mvlm jobs run``: from a matrix file to artifacts in a store."""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.jobs import show_run
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.run_table import run_table
from mvlm.cli.shared.terminal import show, show_json, warn
from mvlm.cli.shared.user_path import store_url

if TYPE_CHECKING:
    from mvlm.compile.jobs.plan import MatrixPlan
    from mvlm.compile.jobs.store import Store

EXAMPLES = (
    "mvlm jobs run matrix.toml --store file:///srv/mvlm",
    "mvlm jobs run matrix.toml --workers 4 --memory 16",
    "mvlm jobs run matrix.toml --engine ray=head:6379 --store s3://bucket/mvlm",
)

_FAILED = 1
_BYTES_IN_GB = 1e9


def command(
    matrix: Annotated[
        Path, typer.Argument(metavar="MATRIX", help="The matrix file.", show_default=False)
    ],
    store: Annotated[
        str | None,
        typer.Option(
            parser=store_url,
            metavar="URL",
            help="The store: a folder, or a URL that fsspec supports; default: the matrix's.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray|ray=ADDRESS",
            help="Processes of this machine, Ray on this machine, or a Ray cluster.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Concurrent jobs; default: all cores."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="GB", help="Memory limit of all workers; default: the free memory."
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            metavar="N",
            help="Retries of a job with a retryable error.",
        ),
    ] = 2,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read existing results, and replace damaged ones."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile models by quantizations by targets by adapters.

    It skips jobs whose result is in the store or that another run has leased. Jobs share packed
    weights. All jobs are planned before the first one starts. After a failure the other jobs
    continue; the exit code is 1 if any job failed.
    """
    from mvlm.compile.jobs.coordinator import Coordinator, Options
    from mvlm.compile.jobs.engines.engine import open_engine

    with tempfile.TemporaryDirectory(prefix="mvlm-jobs-") as logs:
        plan, opened = _plan(matrix, store, Path(logs))
        limit = None if memory is None else int(memory * _BYTES_IN_GB)
        options = Options(retries=retries, verify=verify)
        # Ray prints there what it has to say of its workers.
        with redirect_stdout(sys.stderr), run_table() as observe:
            coordinator = Coordinator(
                plan, opened, open_engine(engine, opened, workers, limit), options, observe
            )
            run, states = coordinator.run()
        report = _report(opened, run, states)
    _show(report, opened.files.url, json)


def _plan(matrix: Path, store: str | None, logs: Path) -> tuple[MatrixPlan, Store]:
    """Read and plan a matrix, and open its store."""
    from mvlm.compile.jobs.matrix import read_matrix
    from mvlm.compile.jobs.plan import plan_matrix
    from mvlm.compile.jobs.store import open_store
    from mvlm.runtime.errors import UsageError

    asked = read_matrix(matrix)
    url = store or asked.store
    if url is None:
        raise UsageError(
            "no store is named",
            expected=f"--store, or the key `store` in {matrix}",
            found="neither",
            fix="`--store file:///srv/mvlm`",
        )
    opened = open_store(url)
    with progress_bars() as draw:
        plan = plan_matrix(asked, logs, lambda done, total: draw("plan", done, total))
    return plan, opened


def _report(store: Store, run: Any, states: Any) -> dict[str, Any]:
    from mvlm.compile.jobs.report import describe_run, write_reports

    report = describe_run(store, run, states)
    return report | {"reports": write_reports(store, run, states, report)}


def _show(report: dict[str, Any], store: str, json: bool) -> None:
    failed = [step for step in report["jobs"] if step["state"] == "failed"]
    if json:
        show_json(report)
    else:
        show_run(report)
        show("")
        show(f"report  {report['reports']['html']}")
    for step in failed:
        warn(f"failed: {step['name']}: {step['note']}")
    if failed:
        warn(f"their logs: mvlm jobs logs {report['run']} --store {store}")
    if report["state"] != "done":
        raise typer.Exit(_FAILED)
