"""``mvlm logs show``: a log's provenance, results and search curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.logs.options import Log
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_columns, show_json, show_table, warn

if TYPE_CHECKING:
    from mvlm.compile.tuning_log import Log as TuningLog
    from mvlm.compile.tuning_log import TaskResult

EXAMPLES = (
    "mvlm logs show tuning_logs/host-znver4",
    "mvlm logs show tuning_logs/host-znver4 --task linear_2048 --plot curves.svg",
)


def command(
    log: Log,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Only kernels with this in their names; default: all."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot each kernel's best time by trials, as SVG or PNG.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a tuning log: its provenance, each kernel's result, and the search's curves."""
    from mvlm.compile.tuning_log import read_log
    from mvlm.compile.tuning_log.curve import best_so_far, draw_curves, sparkline

    found = read_log(log)
    chosen = {
        key: result
        for key, result in found.provenance.results.items()
        if not task or any(part in result.name for part in task)
    }
    curves = {key: best_so_far(found.contents, key) for key in chosen}
    if plot is not None:
        draw_curves(
            {result.name: curves[key] for key, result in chosen.items() if len(curves[key]) > 1},
            plot,
            f"{found.provenance.target}, {found.provenance.device['machine'].get('cpu', '')}",
        )
    if json:
        show_json(_document(found, chosen, curves))
        return
    for where, what in found.damaged.items():
        warn(f"{where} is damaged: {what}")
    _show_provenance(found)
    rows: list[tuple[str, ...]] = [
        ("kernel", "trials", "default", "tuned", "gain", "noise", "best so far")
    ]
    rows += [
        _row(result, sparkline(curves[key]))
        for key, result in sorted(chosen.items(), key=lambda item: item[1].name)
    ]
    show("")
    show_columns(rows)


def _document(
    log: TuningLog, chosen: dict[str, TaskResult], curves: dict[str, list[float]]
) -> dict[str, Any]:
    from dataclasses import asdict

    document = log.provenance.to_json()
    kernels = [
        {"key": key, **asdict(result), "best_so_far": curves[key]} for key, result in chosen.items()
    ]
    return {**document, "kernels": kernels, "damaged_lines": dict(log.damaged)}


def _show_provenance(log: TuningLog) -> None:
    provenance = log.provenance
    machine, state = provenance.device["machine"], provenance.device.get("state", {})
    cores = state.get("cores", [])
    governors = sorted({str(core.get("governor", "unknown")) for core in cores}) or ["unknown"]
    clocks = sorted({core["khz"] // 1000 for core in cores if isinstance(core.get("khz"), int)})
    show_table(
        [
            ("target", provenance.target),
            ("device", f"{machine.get('cpu', '')}, {provenance.threads} threads"),
            (
                "emulated",
                "yes: its times are not a real device's" if provenance.is_emulated else "no",
            ),
            ("governor", ", ".join(governors)),
            ("clocks", ", ".join(f"{clock} MHz" for clock in clocks) or "unknown"),
            ("TVM", provenance.versions.get("apache-tvm", "")),
            ("measurements", str(len(log.contents.records))),
        ]
    )
    for run in provenance.runs:
        show(
            f"run  {run.date}  {run.model}  {run.trials} trials in {run.seconds:.0f} s, seed "
            f"{run.seed}, cost model {run.cost_model}" + ("" if run.is_complete else ", stopped")
        )
        for where, why in run.retired.items():
            show(f"     {where} was retired: {why}")


def _row(result: TaskResult, curve: str) -> tuple[str, ...]:
    tuned = "" if result.tuned_seconds is None else f"{1e6 * result.tuned_seconds:,.1f} us"
    kept = result.record is not None
    return (
        result.name,
        str(result.trials),
        f"{1e6 * result.default_seconds:,.1f} us",
        tuned,
        f"{result.gain:.1%}" if kept else "default kept",
        f"{result.noise:.1%}" if result.noise else "",
        curve,
    )
