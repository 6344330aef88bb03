"""Renders a run's report as one page of HTML: the matrix, its colours, and what failed.

The page needs nothing else, neither scripts nor fonts, and everything in it that came from a file
or a worker is escaped.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mvlm.runtime.terminal_text import printable

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em;
  color: #1c2228; background: #fff }
table { border-collapse: collapse; margin: 1.2em 0 }
th, td { border: 1px solid #c9d1d9; padding: .4em .7em; text-align: left; vertical-align: top }
th { background: #f3f5f7; font-weight: 600 }
td small { color: #4a545e; display: block }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.done { background: #d8f3dc }
.reused { background: #dbeafe }
.failed { background: #fde0df }
.running { background: #fff3c4 }
.cancelled { background: #e7e5e4 }
pre { background: #f3f5f7; padding: .8em; white-space: pre-wrap; font-size: 13px }
@media (prefers-color-scheme: dark) {
  body { color: #e6e9ec; background: #14181c }
  a { color: #8ab4f8 }
  th, pre { background: #1f262d }
  th, td { border-color: #39434d }
  td small { color: #a7b1bb }
  .done { background: #14432a }
  .reused { background: #17325c }
  .failed { background: #5c1d1b }
  .running { background: #54430d }
  .cancelled { background: #33302e }
}
"""
# What stands where the matrix asks for no job.
_NONE = "<td>&ndash;</td>"


def render_html(report: Mapping[str, Any], logs: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        report: What `report.describe_run` returns.
        logs: The ends of logs by the steps' keys, as they are to be shown.
    """
    jobs, weights = report["jobs"], report["weights"]
    title = f"Compile jobs {report['run']}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_escape(title)}</h1>",
        _summary(report),
        "<h2>The matrix</h2>",
        _matrix(jobs),
        "<h2>Shared weights</h2>" if weights else "",
        _steps(weights) if weights else "",
        "<h2>Jobs</h2>",
        _steps(jobs),
        *(_log(step, logs[step["key"]]) for step in (*weights, *jobs) if step["key"] in logs),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _summary(report: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in report["counts"].items() if count)
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report["started"]))
    rows = {
        "state": f"{report['state']}: {counts}",
        "matrix": report["matrix"],
        "store": report["store"],
        "engine": report["engine"],
        "started": begun,
        "took": _seconds(report["seconds"]),
    }
    cells = (
        f"<tr><th>{key}</th><td>{_escape(str(value))}</td></tr>" for key, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def _matrix(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Draw models and schemes downwards, devices across."""
    columns = sorted({_column(job) for job in jobs})
    rows = dict.fromkeys(_row(job) for job in jobs)
    cells: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for job in jobs:
        cells.setdefault((_row(job), _column(job)), []).append(job)
    head = "".join(f"<th>{_escape(column)}</th>" for column in columns)
    lines = [f"<table><tr><th>model</th><th>adapter</th><th>quantization</th>{head}</tr>"]
    for row in rows:
        names = "".join(f"<th>{_escape(name)}</th>" for name in row)
        found = "".join(_cell(cells.get((row, column), [])) for column in columns)
        lines.append(f"<tr>{names}{found}</tr>")
    return "\n".join([*lines, "</table>"])


def _cell(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Draw what is at one place: a job, or several whose models were given the same name."""
    if not jobs:
        return _NONE
    state = jobs[0]["state"] if len({job["state"] for job in jobs}) == 1 else ""
    return f'<td class="{_escape(state)}">{"<br>".join(map(_link, jobs))}</td>'


def _link(job: Mapping[str, Any]) -> str:
    details = [_seconds(job["seconds"]), _size(job["result_bytes"])]
    shown = " · ".join(detail for detail in details if detail)
    return f'<a href="#{_anchor(job)}">{_escape(job["state"])}</a><small>{shown}</small>'


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    heads = ("name", "state", "attempts", "time", "memory", "size", "worker", "note")
    lines = ["<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for step in steps:
        numbers = (
            str(step["attempts"]),
            _seconds(step["seconds"]),
            _size(step["peak_bytes"]),
            _size(step["result_bytes"]),
        )
        lines.append(
            f'<tr id="{_anchor(step)}"><td>{_escape(step["name"])}'
            f"<small>{_escape(step['key'][:16])}</small></td>"
            f'<td class="{_escape(step["state"])}">{_escape(step["state"])}</td>'
            + "".join(f'<td class="number">{number}</td>' for number in numbers)
            + f"<td>{_escape(step['worker'])}</td><td>{_escape(step['note'])}</td></tr>"
        )
    return "\n".join([*lines, "</table>"])


def _log(step: Mapping[str, Any], log: str) -> str:
    return f"<h3>The log of {_escape(step['name'])}</h3>\n<pre>{_escape(log)}</pre>"


def _row(job: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(job.get(key, "")) for key in ("model", "adapter", "quantization"))


def _column(job: Mapping[str, Any]) -> str:
    return f"{job.get('target', '')} ({job.get('platform', '')})"


def _anchor(step: Mapping[str, Any]) -> str:
    return f"job-{_escape(step['key'][:16])}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _size(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:,.1f} MB"


def _escape(text: str) -> str:
    """Write a text as HTML; what would reorder the text around it is replaced, as on a terminal."""
    return html.escape(printable(text))
