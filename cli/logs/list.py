"""``mvlm logs list``: the tuning logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvlm.cli.logs.options import Logs
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_columns, show_json, warn

if TYPE_CHECKING:
    from mvlm.compile.tuning_log import Log

EXAMPLES = ("mvlm logs list", "mvlm logs list --logs tuning_logs --json")


def command(logs: Logs = None, json: Json = False, debug: Debug = False) -> None:
    """List the tuning logs: target, device, date, trials, and how many kernels are tuned."""
    from mvlm.compile.tuning_log import find_logs, log_folders, read_log
    from mvlm.runtime.errors import ArtifactError

    entries, problems = [], []
    for folder in find_logs(logs or log_folders()):
        try:
            entries.append(_entry(read_log(folder)))
        except ArtifactError as error:
            problems.append({"log": str(folder), "problem": str(error)})
    if json:
        show_json({"logs": entries, "unreadable": problems})
        return
    for problem in problems:
        warn(problem["problem"])
    if not entries:
        show("no logs: `mvlm tune MODEL` makes one")
        return
    rows = [("log", "target", "device", "threads", "date", "trials", "tuned", "damaged lines")]
    rows += [
        (
            entry["log"],
            entry["target"],
            entry["device"] + (" (emulated)" if entry["is_emulated"] else ""),
            str(entry["threads"]),
            entry["date"][:10],
            str(entry["trials"]),
            f"{entry['tuned']} of {entry['kernels']}",
            str(entry["damaged_lines"]),
        )
        for entry in entries
    ]
    show_columns(rows)


def _entry(log: Log) -> dict[str, Any]:
    provenance = log.provenance
    results = provenance.results.values()
    return {
        "log": str(Path(log.folder)),
        "target": provenance.target,
        "device": str(provenance.device["machine"].get("cpu", "")),
        "is_emulated": provenance.is_emulated,
        "threads": provenance.threads,
        "tvm": provenance.versions.get("apache-tvm", ""),
        "date": provenance.runs[-1].date if provenance.runs else "",
        "trials": sum(run.trials for run in provenance.runs),
        "kernels": len(results),
        "tuned": sum(result.record is not None for result in results),
        "damaged_lines": len(log.damaged),
    }
