"""The speedup of a model by tuning, interleaved: ``python -m mvlm.bench.studies.tuning_gain``.

Both artifacts are of one checkpoint, and open in one process, so that they share threads and
memory's state, and they map the same files of weights, so that both read the very same memory. Runs
are interleaved, A B A B. Each number is a median; the gain that of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from mvlm.bench.docs_table import write_table
from mvlm.bench.measure import MeasurementPlan, measure_speeds
from mvlm.bench.report import machine_facts
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.compile.tuning_log import find_logs, read_log
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.completion import Stats
from mvlm.runtime.model import FloatArray, Model

DOCUMENT = Path("docs/tuning.md")


@dataclass(frozen=True)
class Pair:
    """One run of each.

    Attributes:
        default: Of the artifact without tuning.
        tuned: Of the other.
    """

    default: Stats
    tuned: Stats


def measure_interleaved(
    default: Model, tuned: Model, plan: MeasurementPlan, rounds: int
) -> list[Pair]:
    """Measure two models, interleaved, after a run of each that does not count."""
    one = MeasurementPlan(1, plan.prompt_tokens, plan.tokens)
    pairs = []
    for number in range(rounds):
        # Whoever is first finds the machine as the other one has left it.
        order = (default, tuned) if number % 2 == 0 else (tuned, default)
        stats = {id(model): measure_speeds(model, one, _pixels(model))[0] for model in order}
        pairs.append(Pair(stats[id(default)], stats[id(tuned)]))
    return pairs


def _pixels(model: Model) -> FloatArray | None:
    spec = model.settings.image
    return None if spec is None else np.zeros((1, 3, spec.size, spec.size), np.float32)


_ROWS: tuple[tuple[str, Callable[[Stats], float], bool], ...] = (
    ("decode, tok/s", lambda stats: stats.decode_tok_s, True),
    ("prefill, tok/s", lambda stats: stats.prefill_tok_s, True),
    ("vision, ms", lambda stats: stats.vision_ms, False),
    ("first token, ms", lambda stats: stats.first_token_ms, False),
)


def table(name: str, pairs: Sequence[Pair], tuning: dict[str, int], trials: int, own: int) -> str:
    """Write the comparison as a table of Markdown.

    Args:
        name: The model's.
        pairs: The measurements.
        tuning: What the tuned artifact's manifest says of it.
        trials: That the log took.
        own: Those of them that were made with this model.
    """
    facts = machine_facts()
    lines = [
        f"{name} on {facts['cores']} cores of {facts['cpu']}, {len(pairs)} interleaved rounds.",
        f"{tuning['tuned']} of {tuning['tuned'] + tuning['default']} kernels are tuned by a log of",
        f"{trials:,} trials, {own:,} of them with this model:",
        "",
        "| | default | tuned | gain | faster rounds |",
        "|---|--:|--:|--:|--:|",
    ]
    for label, value, is_rate in _ROWS:
        before = [value(pair.default) for pair in pairs]
        after = [value(pair.tuned) for pair in pairs]
        ratios = [a / b if is_rate else b / a for a, b in zip(after, before, strict=True)]
        wins = sum(ratio > 1 for ratio in ratios)
        lines.append(
            f"| {label} | {median(before):,.1f} | {median(after):,.1f} "
            f"| {median(ratios) - 1:+.1%} | {wins} of {len(pairs)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compile both, measure them interleaved, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.tuning_gain", description=__doc__
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--logs", type=Path, action="append", help="folders of logs")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mvlm-tuning-gain-") as folder:
        folders = {kind: Path(folder) / kind for kind in ("default", "tuned")}
        compile_job(plan_job(options.checkpoint, logs=()), folders["default"])
        job = plan_job(options.checkpoint, logs=options.logs)
        compile_job(job, folders["tuned"], share=[folders["default"]])
        tuning = read_manifest(folders["tuned"]).provenance["tuning"]
        used = {log["name"] for log in tuning["logs"]}
        runs = [
            run
            for log in find_logs(job.logs)
            if log.name in used
            for run in read_log(log).provenance.runs
        ]
        default, tuned = (Model(folders[kind]) for kind in ("default", "tuned"))
        plan = MeasurementPlan(1, options.prompt_tokens, options.tokens)
        pairs = measure_interleaved(default, tuned, plan, options.rounds)
        name = options.checkpoint.resolve().name
        own = sum(run.trials for run in runs if run.model == name)
        text = table(name, pairs, tuning, sum(run.trials for run in runs), own)
    print(text)
    if options.write:
        write_table(DOCUMENT, f"tuning-gain {name}", text)


if __name__ == "__main__":
    main()
