"""`python -m mvlm.training`: trains the bundled model from nothing, on two cores, within an hour.

Draws the images, trains the tokenizer and the three stages of `stages`, and writes the two
checkpoint folders. Each finished step is kept in the work folder, so that a run can be resumed
and a later stage repeated with `--from`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mvlm.training.export import export
from mvlm.training.image_store import ImageStore, draw_store
from mvlm.training.model.clip import ClipTower
from mvlm.training.model.mobilevlm import MobileVlm, ModelConfig, build
from mvlm.training.prompt import Prompter
from mvlm.training.stages import Report, StagePlan, align_projector, pretrain_tower, tune
from mvlm.training.tokenizer import train_tokenizer

IMAGES = 60_000
#: The stages in order. Their bounds only matter on a machine that is slower than two quiet cores:
#: the schedules then end early instead of running over `--time-limit`.
STAGE_PLANS = {
    "tower": StagePlan(steps=3000, batch=32, rate=8e-3),
    "alignment": StagePlan(steps=800, batch=32, rate=6e-3),
    "tuning": StagePlan(steps=2500, batch=16, rate=6e-3, pairs=12, tokens=220),
}
#: The most that the stages before the last may take of the limit; the last gets what is left.
SHARES = {"tower": 0.475, "alignment": 0.05}


@dataclass(frozen=True)
class TrainingRun:
    """One training run: where it keeps its state and where the result goes."""

    seed: int
    work: Path
    output: Path
    minutes: float

    def plan(self, stage: str, spent: float) -> StagePlan:
        """The stage's plan, bounded; the stages before it have taken `spent` seconds."""
        limit = 60 * self.minutes
        bound = limit * SHARES[stage] if stage in SHARES else limit - spent
        return replace(STAGE_PLANS[stage], seconds=max(bound, 1.0))

    def checkpoint(self, stage: str) -> Path:
        """Where the state after a stage is kept."""
        return self.work / f"{stage}-{self.seed}.pt"


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(prog="python -m mvlm.training", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("models/bundled"))
    parser.add_argument("--work", type=Path, default=Path("build/training"),
                        help="images and stage checkpoints (4 GB)")  # fmt: skip
    parser.add_argument("--from", dest="first", choices=list(STAGE_PLANS),
                        help="repeat this stage and those after it")  # fmt: skip
    parser.add_argument("--until", dest="last", choices=list(STAGE_PLANS), default="tuning")
    parser.add_argument("--time-limit", type=float, default=54, metavar="MINUTES",
                        help="bound on the three stages together")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = TrainingRun(options.seed, options.work, options.output, options.time_limit)
    names = list(STAGE_PLANS)
    if options.first:
        for stage in names[names.index(options.first) :]:
            run.checkpoint(stage).unlink(missing_ok=True)
    train(run, names[: names.index(options.last) + 1], options.threads, Console())


def train(run: TrainingRun, stages: list[str], threads: int, console: Console) -> None:
    """Runs the stages that have no checkpoint yet and exports the result."""
    config = ModelConfig()
    run.work.mkdir(parents=True, exist_ok=True)
    with _bar(console, "images", IMAGES) as report:
        drawn = 0

        def advance(count: int) -> None:
            nonlocal drawn
            drawn += count
            report(drawn, IMAGES, {})

        store = draw_store(run.work, IMAGES, config.clip.image_size, run.seed, threads, advance)
    tokenizer = _tokenizer(run, console)
    prompter = Prompter(tokenizer)
    tower, model = build(config, run.seed)
    spent = 0.0
    for stage in stages:
        saved = run.checkpoint(stage)
        if not saved.exists():
            began = time.monotonic()
            plan = run.plan(stage, spent)
            _run_stage(stage, plan, run.seed, tower, model, prompter, store, console)
            seconds = time.monotonic() - began
            parts = {"tower": tower.state_dict(), "model": model.state_dict()}
            torch.save(parts | {"seconds": seconds}, saved)
        state = torch.load(saved, weights_only=True)
        tower.load_state_dict(state["tower"])
        model.load_state_dict(state["model"])
        spent += state["seconds"]
    export(run.output, tower, model, tokenizer)
    console.print(f"wrote {run.output}")


def _run_stage(
    stage: str, plan: StagePlan, seed: int, tower: ClipTower, model: MobileVlm, prompter: Prompter,
    store: ImageStore, console: Console,
) -> None:  # fmt: skip
    with _bar(console, stage, plan.steps) as report:
        if stage == "tower":
            pretrain_tower(tower, store, plan, seed, report)
        else:
            learn = align_projector if stage == "alignment" else tune
            learn(tower, model, prompter, store, plan, seed, report)


def _tokenizer(run: TrainingRun, console: Console) -> bytes:
    saved = run.work / f"tokenizer-{run.seed}.model"
    if not saved.exists():
        with console.status("tokenizer"):
            saved.write_bytes(train_tokenizer(run.seed))
    return saved.read_bytes()


@contextmanager
def _bar(console: Console, name: str, total: int) -> Iterator[Report]:
    """A progress bar with the running measurements; plain lines where there is no terminal."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[scores]}"),
    )
    began = last = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, scores="")

        def report(step: int, steps: int, scores: dict[str, float]) -> None:
            nonlocal last
            shown = " ".join(f"{key} {value:.3f}" for key, value in scores.items())
            progress.update(task, completed=step, scores=shown)
            now = time.monotonic()
            if not console.is_terminal and (now - last > 15 or step == steps):
                last = now
                print(f"{name} {step}/{steps} {now - began:.0f} s {shown}", flush=True)

        yield report


if __name__ == "__main__":
    main()
