"""Writes docs/speed.md and its plot from a comparison on a quiet machine."""

from __future__ import annotations

from pathlib import Path

from mvlm.bench.peers.comparison import Comparison
from mvlm.bench.peers.plot import draw
from mvlm.bench.peers.tables import Rows, facts, goals, speeds
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import MvlmError

PAGE, PLOT = "speed.md", "speed.svg"

_HOW = """\
Each tool runs in its own process, with the same model, prompt and image. A round measures each tool
once, ours first; the table has the medians of the rounds. Brackets give our speedup over the tool
in the same run; for memory, our share of the tool's. The memory's read bandwidth is measured in
every round of decoding. A round in which other processes took over a tenth of a core is repeated.
If that does not help, nothing is judged and this page is not written.
"""


def write_page(comparison: Comparison, folder: Path) -> tuple[Path, Path]:
    """Write the page and the plot, each whole or not at all.

    Raises:
        MvlmError: The machine was not quiet, or a tool failed.
    """
    problems = comparison.disturbances + comparison.failures
    if problems:
        raise MvlmError(
            f"{folder / PAGE} is not written",
            expected="a quiet machine and no failure",
            found="; ".join(problems),
        )
    for name, text in ((PLOT, draw(comparison)), (PAGE, page(comparison))):
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    return folder / PAGE, folder / PLOT


def page(comparison: Comparison) -> str:
    """Return the page in Markdown."""
    told = "\n".join(
        f"- **{name}**: {value}" if name else f"  {value}" for name, value in facts(comparison)
    )
    return "\n".join(
        (
            f"# Speed: {comparison.model}\n",
            f"Written by `{comparison.command}`.\n",
            f"![Decode and prefill by length and by threads]({PLOT})\n",
            _markdown(speeds(comparison)),
            "## Goals\n",
            _markdown(goals(comparison)),
            "## How it was measured\n",
            _HOW,
            told + "\n",
        )
    )


def _markdown(rows: Rows) -> str:
    header, *body = rows
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *body)) + "\n"
