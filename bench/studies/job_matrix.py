"""Times a matrix of small compile jobs: ``python -m mvlm.bench.studies.job_matrix``.

The bundled model's checkpoint in 12 schemes for 2 devices: 24 jobs, which share 12 packings. Each
run begins with an empty store; a last one finds everything done.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvlm.bench.docs_table import write_table
from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.runtime.machine import read_machine
from mvlm.runtime.start_module import module_command

DOCUMENT = Path("docs/jobs.md")
WORKERS = (1, 2)
_SCHEMES = ("q4a8", "q8a8", "q16a16", "q4f16_1", "q0f16", "q0f32")
# Other towers make other weights, so that each scheme is packed anew.
_TOWERS = ("q0f16", "q0f32")
_BOARD = """\
schema = 1
name = "plain"
summary = "a CPU of this architecture without any extensions"
kernels = "cpu"

[cpu]
architecture = "{architecture}"
llvm = "{llvm}"

[memory]
gigabytes_s = 10
gigabytes = 4
"""
_LLVM = {"x86_64": "x86-64", "aarch64": "generic"}


@dataclass(frozen=True)
class Timing:
    """One run of the matrix.

    Attributes:
        name: What was done.
        seconds: Of the run itself, from looking for results to the last one; without planning.
        jobs: Jobs that were compiled.
        reused: Jobs whose results were there.
        packings: How often weights were packed.
        peak_bytes: The largest resident memory of a worker.
    """

    name: str
    seconds: float
    jobs: int
    reused: int
    packings: int
    peak_bytes: int


def write_matrix(folder: Path) -> Path:
    """Write the matrix, and the board that it names."""
    architecture = platform.machine()
    board = _BOARD.format(architecture=architecture, llvm=_LLVM[architecture])
    (folder / "plain.toml").write_text(board)
    schemes = [
        f'{{ scheme = "{scheme}", vision = "{tower}" }}' for scheme in _SCHEMES for tower in _TOWERS
    ]
    path = folder / "matrix.toml"
    path.write_text(
        f'models = ["{BUNDLED.absolute()}"]\n'
        f"quantizations = [{', '.join(schemes)}]\n"
        'targets = ["host", "plain.toml"]\n'
    )
    return path


def measure(name: str, matrix: Path, store: Path, workers: int) -> Timing:
    """Run the matrix and say what it took.

    Raises:
        SystemExit: A job failed.
    """
    command = ["jobs", "run", matrix, "--store", store, "--workers", workers, "--json"]
    result = subprocess.run(
        module_command("mvlm.cli", *map(str, command)), stdout=subprocess.PIPE, check=False
    )
    if result.returncode:
        raise SystemExit(result.returncode)
    report: dict[str, Any] = json.loads(result.stdout)
    steps = [*report["jobs"], *report["weights"]]
    return Timing(
        name=name,
        seconds=report["seconds"],
        jobs=report["counts"]["done"],
        reused=report["counts"]["reused"],
        packings=sum(step["state"] == "done" for step in report["weights"]),
        peak_bytes=max((step["peak_bytes"] or 0 for step in steps), default=0),
    )


def table(results: Sequence[Timing]) -> str:
    """Write results as Markdown."""
    machine = read_machine()
    lines = [
        f"On {machine.cores} cores of an {machine.cpu}:",
        "",
        "| | time | jobs compiled | jobs reused | weights packed | memory per worker |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        memory = f"{result.peak_bytes / 1e9:.2f} GB" if result.peak_bytes else "–"  # noqa: RUF001
        cells = (result.name, f"{result.seconds:.1f} s", result.jobs, result.reused)
        lines.append("| " + " | ".join(map(str, (*cells, result.packings, memory))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write it into {DOCUMENT}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        matrix, results = write_matrix(folder), []
        for workers in WORKERS:
            store = folder / f"store-{workers}"
            name = f"{workers} worker{'' if workers == 1 else 's'}"
            results.append(measure(name, matrix, store, workers))
            print(results[-1], file=sys.stderr, flush=True)
        results.append(measure("again, all done", matrix, store, workers))
    print(table(results), end="")
    if options.write:
        write_table(DOCUMENT, "job-matrix", table(results))


if __name__ == "__main__":
    main()
