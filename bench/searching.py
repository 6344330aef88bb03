"""What the model of costs is worth, in searches with and without: `python -m mvlm.bench.searching`.

Each search begins with an empty log, for the same kernels and the same number of trials. What is
compared is the time of a turn spent in those kernels, by the best that was found, after each trial;
and after how many trials it is as good as the searches without the model are at their end.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from mvlm.bench.document import write_table
from mvlm.bench.report import machine_facts
from mvlm.compile.compile_target import prepare_target
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.tuning.log import Tables
from mvlm.compile.tuning.log.folder import read_log
from mvlm.compile.tuning.plan import TuningPlan
from mvlm.compile.tuning.task import extract_tasks
from mvlm.compile.tuning.tuner import tune

DOCUMENT = Path("docs/tuning.md")
# Of a vision tower, of decoding, of reading: the largest spaces.
FUNCTIONS = ("linear_4096x1024", "linear_2048x5632", "linear_1024x4096")
_SHOWN = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512)


def search(job: CompileJob, trials: int, seed: int, has_model: bool) -> list[float]:
    """Search once; return the seconds of a turn by the best, before the first trial and after each.

    Args:
        job: The model.
        trials: How many.
        seed: Of what is drawn.
        has_model: Whether candidates are ranked.
    """
    with tempfile.TemporaryDirectory(prefix="mvlm-searching-") as folder:
        plan = TuningPlan(trials, Path(folder), seed, has_model, functions=FUNCTIONS)
        result = tune(job, plan)
        tables = read_log(result.log).tables
    tasks = extract_tasks(job, prepare_target(job.target))
    return turn_seconds(tables, {task.key: task.calls for task in tasks})


def turn_seconds(tables: Tables, calls: dict[str, int]) -> list[float]:
    """Return a turn's time by the best so far, once every task's default is measured."""
    of_workload = {
        outcome.workload: calls[key] for key, outcome in tables.outcomes.items() if key in calls
    }
    best: dict[int, float] = {}
    curve = []
    for record in tables.records:
        if record.workload not in of_workload:
            continue
        best[record.workload] = min(record.median, best.get(record.workload, record.median))
        if len(best) == len(of_workload):
            curve.append(sum(of_workload[place] * value for place, value in best.items()))
    return curve


def trials_to_reach(curve: Sequence[float], goal: float) -> int | None:
    """Return after how many trials a search is as good as a goal; None if it never is."""
    return next((place for place, value in enumerate(curve) if value <= goal), None)


def table(curves: dict[bool, list[list[float]]], cpu: str) -> str:
    """Write both kinds of searches as a table of Markdown."""
    longest = max(len(curve) for both in curves.values() for curve in both)
    shown = [trials for trials in _SHOWN if trials < longest]
    goal = median(curve[-1] for curve in curves[False])
    lines = [
        f"{', '.join(f'`{name}`' for name in FUNCTIONS)} of {cpu}; the time of the best so far, "
        f"% of the defaults', medians of {len(curves[True])} seeds:",
        "",
        "| trials | " + " | ".join(map(str, shown)) + " | as good as chance at its end, after |",
        "|---|" + "--:|" * (len(shown) + 1),
    ]
    for has_model, name in ((True, "with the model of costs"), (False, "by chance")):
        shares = [
            median(100 * curve[min(at, len(curve) - 1)] / curve[0] for curve in curves[has_model])
            for at in shown
        ]
        reached = [trials_to_reach(curve, goal) for curve in curves[has_model]]
        known = sorted(place for place in reached if place is not None)
        when = f"{median(known):.0f} trials" if len(known) * 2 > len(reached) else "never"
        cells = " | ".join(f"{share:.1f}" for share in shares)
        lines.append(f"| {name} | {cells} | {when} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Search in turns with and without the model, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m mvlm.bench.searching", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    job = plan_job(options.checkpoint, logs=())
    curves: dict[bool, list[list[float]]] = {True: [], False: []}
    for seed in range(options.seeds):
        for has_model in (True, False):
            curves[has_model].append(search(job, options.trials, seed, has_model))
    text = table(curves, str(machine_facts()["cpu"]))
    print(text)
    if options.write:
        write_table(DOCUMENT, "searching", text)


if __name__ == "__main__":
    main()
