"""``mvlm bench --peer``: a comparison with other tools, from the options to the table."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mvlm.cli.shared.artifacts import find_artifact
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import is_terminal, show, show_json, show_table, warn

if TYPE_CHECKING:
    from mvlm.bench.peers.benchmark import Tool
    from mvlm.bench.peers.comparison import Comparison

# Where nobody looks, nothing is wrapped.
_WIDE = 160
_MOST_ROUNDS = 1000
_NO_VERDICT = 1


@dataclass(frozen=True)
class ComparisonRequest:
    """What the user wants to have compared.

    Attributes:
        peers: The other tools.
        scenarios: Names; none for all.
        rounds: That count.
        threads: All cores if None.
        vision_tower: The folder of a V1's CLIP, where it would not be found.
        write: The folder for the page and the plot, or None.
    """

    peers: tuple[str, ...]
    scenarios: tuple[str, ...]
    rounds: int
    threads: int | None
    vision_tower: Path | None
    write: Path | None


def compare(path: Path, request: ComparisonRequest, *, json: bool) -> None:
    """Compare, print the result, and write the page if that was asked for.

    Raises:
        UsageError: An option is wrong, or the path is no checkpoint.
        MvlmError: A tool is not installed, or its files cannot be made.
        Exit: With code 1, where nothing could be judged or a tool failed.
    """
    from mvlm.bench.peers.speed_page import write_page

    comparison = _measure(path, request)
    if json:
        show_json(comparison.to_json())
    else:
        _show(comparison)
    for failure in comparison.failures:
        warn(f"error: {failure}")
    if comparison.disturbances:
        warn(
            "error: no verdict, because the machine is not quiet: "
            + "; ".join(comparison.disturbances)
            + ". End other work and run it again."
        )
    if comparison.failures or comparison.disturbances:
        if request.write is not None:
            warn(f"{request.write} is left as it was")
        raise typer.Exit(_NO_VERDICT)
    if request.write is not None:
        for written in write_page(comparison, request.write):
            warn(f"wrote {written}")


def _measure(path: Path, request: ComparisonRequest) -> Comparison:
    from mvlm.bench.peers.benchmark import Benchmark
    from mvlm.bench.peers.catalogue import find_peers
    from mvlm.bench.peers.comparison import Comparison
    from mvlm.bench.peers.plot import require_matplotlib
    from mvlm.bench.peers.runner import Setup
    from mvlm.bench.peers.scenarios import find_scenarios
    from mvlm.bench.report import machine_facts
    from mvlm.compile.job import plan_job
    from mvlm.runtime.errors import UsageError

    if not 1 <= request.rounds <= _MOST_ROUNDS:
        raise UsageError("--runs", expected=f"1 to {_MOST_ROUNDS}", found=request.rounds)
    if request.write is not None:
        if not request.write.is_dir():
            raise UsageError("--write", expected="a folder", found=str(request.write))
        require_matplotlib()
    peers = find_peers(request.peers)
    _require_checkpoint(path)
    job = plan_job(path, vision_tower=request.vision_tower)
    config = job.config
    scenarios = find_scenarios(
        request.scenarios, has_vision=config.vision is not None, context=job.context
    )
    machine, cores = machine_facts(), os.sched_getaffinity(0)
    setup = Setup(
        files={},
        threads=request.threads or len(cores),
        context=0,
        vocabulary=config.language.vocab_size,
        bos=config.generation.bos_token_id,
        image=config.image,
        has_vision=False,
    )
    tools = _tools(path, request, [s.ours for s in scenarios])
    from mvlm.bench.peers.files import prepare_peer

    tools |= {peer.name: prepare_peer(peer, job, notice=warn) for peer in peers}
    with progress_bars() as progress:
        benchmark = Benchmark(setup, config.image_tokens, request.rounds, cores, progress=progress)
        results = tuple(
            benchmark.run(
                scenario,
                [tools[name] for name in (*scenario.ours, *(peer.name for peer in peers))],
            )
            for scenario in scenarios
        )
    return Comparison(
        model=job.name,
        threads=setup.threads,
        rounds=request.rounds,
        peers=tuple(peer.name for peer in peers),
        results=results,
        machine=machine | {"load_after": list(os.getloadavg())},
        command=_command(path, request),
    )


def _require_checkpoint(path: Path) -> None:
    from mvlm.runtime.artifact.layout import MANIFEST
    from mvlm.runtime.errors import UsageError

    if (path / MANIFEST).is_file():
        raise UsageError(
            "--peer needs a checkpoint, which the other tools' files are made of",
            expected="a checkpoint's folder",
            found=f"the artifact {path}",
            fix="Name the folder that it was compiled from.",
        )


def _tools(
    path: Path, request: ComparisonRequest, builds: Sequence[Sequence[str]]
) -> dict[str, Tool]:
    """Our own builds that the scenarios ask for, compiled if they are not in the cache."""
    from mvlm.bench.peers.benchmark import Tool
    from mvlm.bench.peers.scenarios import BUILDS

    found = {}
    for name in dict.fromkeys(name for names in builds for name in names):
        language, vision = BUILDS[name]
        artifact = find_artifact(
            path,
            quantization=language,
            vision_quantization=vision,
            vision_tower=request.vision_tower,
        )
        files = {"artifact": str(artifact)}
        found[name] = Tool(name, "mvlm.bench.peers.ours", files, has_vision=True)
    return found


def _command(path: Path, request: ComparisonRequest) -> str:
    """The command line that measures this again; of the path, the last part of its name."""
    words = ["mvlm", "bench", path.resolve().name]
    for option, values in (("--peer", request.peers), ("--scenario", request.scenarios)):
        for value in values:
            words += [option, value]
    words += ["--runs", str(request.rounds)]
    if request.threads is not None:
        words += ["--threads", str(request.threads)]
    if request.write is not None:
        words += ["--write", str(request.write)]
    return shlex.join(words)


def _show(comparison: Comparison) -> None:
    """Print the tables; that of goals only where the machine was quiet."""
    from mvlm.bench.peers.tables import facts, goals, speeds

    _show_grid(speeds(comparison))
    show_table(facts(comparison))
    if comparison.goal_results and not comparison.disturbances:
        show("")
        _show_grid(goals(comparison))


def _show_grid(rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from mvlm.cli.shared.rich_text import literal

    header, *body = rows
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(header):
        table.add_column(literal(title), justify="right" if index else "left")
    for row in body:
        table.add_row(*(literal(cell) for cell in row))
    width = None if is_terminal(sys.stdout) else _WIDE
    Console(file=sys.stdout, width=width, highlight=False).print(table)
