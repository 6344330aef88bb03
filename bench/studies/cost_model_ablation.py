"""Compares searches with and without the cost model.

Run as ``python -m mvlm.bench.studies.cost_model_ablation``.

Each search begins with an empty log, for the same kernels and the same number of trials. Compared
are the time of a chat's turn in those kernels, by the best configurations found, after each trial;
and after how many trials that is near the best of all searches.

The speed of a machine drifts; times are given relative to the interleaved default.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from mvlm.bench.docs_table import write_table
from mvlm.bench.report import machine_facts
from mvlm.compile.compile_target import prepare_target
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.task import extract_tasks
from mvlm.compile.tuning.tuner import tune
from mvlm.compile.tuning_log import Database
from mvlm.compile.tuning_log.tuning_database import read_log

DOCUMENT = Path("docs/tuning.md")
# Of a vision tower, of decoding, of reading: the largest spaces.
FUNCTIONS = ("linear_4096x1024", "linear_2048x5632", "linear_1024x4096")
_NEAR = (0.05, 0.02, 0.01)
_SHOWN = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512)


def search(
    job: CompileJob, calls: dict[str, int], trials: int, seed: int, has_model: bool
) -> list[float]:
    """Search once; return a turn's time by the best, before the first trial and after each.

    Args:
        job: The model.
        calls: How often a turn calls each task, by its key.
        trials: How many.
        seed: Of what is drawn.
        has_model: Whether candidates are ranked.

    Returns:
        Shares of the defaults' time.
    """
    with tempfile.TemporaryDirectory(prefix="mvlm-ablation-") as folder:
        plan = TuningOptions(trials, Path(folder), seed, has_model, functions=FUNCTIONS)
        result = tune(job, plan)
        database = read_log(result.log).contents
    curve = weighted_seconds(database, calls)
    return [seconds / curve[0] for seconds in curve]


def weighted_seconds(database: Database, calls: dict[str, int]) -> list[float]:
    """Return a turn's time by the best so far, once every task's default is measured."""
    of_workload = {
        result.workload: calls[key] for key, result in database.results.items() if key in calls
    }
    best: dict[int, float] = {}
    curve = []
    for record in database.records:
        if record.workload not in of_workload:
            continue
        best[record.workload] = min(record.median, best.get(record.workload, record.median))
        if len(best) == len(of_workload):
            curve.append(sum(of_workload[place] * value for place, value in best.items()))
    return curve


def trials_to_reach(curve: Sequence[float], goal: float) -> float:
    """Return after how many trials a search is as good as a goal; infinity if it never is."""
    return next((place for place, value in enumerate(curve) if value <= goal), math.inf)


def _count(trials: float) -> str:
    return "never" if math.isinf(trials) else f"{trials:.0f}"


def table(curves: dict[bool, list[list[float]]], cpu: str) -> str:
    """Write both kinds of searches as a table of Markdown."""
    everything = [curve for both in curves.values() for curve in both]
    shown = [trials for trials in _SHOWN if trials < max(map(len, everything))]
    best = min(curve[-1] for curve in everything)
    lines = [
        f"{', '.join(f'`{name}`' for name in FUNCTIONS)} on {cpu}, medians of",
        f"{len(curves[True])} searches each. The table gives the best time so far, in % of the",
        "defaults' time, and the trials until it is within a few % of the best of all searches:",
        "",
        "| trials | "
        + " | ".join([*map(str, shown), *(f"within {near:.0%}" for near in _NEAR)])
        + " |",
        "|---|" + "--:|" * (len(shown) + len(_NEAR)),
    ]
    for has_model, name in ((True, "with the cost model"), (False, "random")):
        shares = [
            median(100 * curve[min(at, len(curve) - 1)] for curve in curves[has_model])
            for at in shown
        ]
        when = [
            median(trials_to_reach(curve, best * (1 + near)) for curve in curves[has_model])
            for near in _NEAR
        ]
        cells = [*(f"{share:.1f}" for share in shares), *(_count(trials) for trials in when)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Search with and without the cost model, interleaved, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.cost_model_ablation", description=__doc__
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    job = plan_job(options.checkpoint, logs=())
    tasks = extract_tasks(job, prepare_target(job.target))
    calls = {task.key: task.weight for task in tasks}
    curves: dict[bool, list[list[float]]] = {True: [], False: []}
    for seed in range(options.seeds):
        for has_model in (True, False):
            curve = search(job, calls, options.trials, seed, has_model)
            curves[has_model].append(curve)
            points = " ".join(f"{value:.3f}" for value in curve[::16])
            print(f"seed {seed}, model {has_model}: {points}", file=sys.stderr, flush=True)
    text = table(curves, str(machine_facts()["cpu"]))
    print(text)
    if options.write:
        write_table(DOCUMENT, "cost-model-ablation", text)


if __name__ == "__main__":
    main()
