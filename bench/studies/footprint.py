"""What real sizes cost: ``python -m mvlm.bench.studies.footprint``.

For each published model, with random weights: how long compiling takes and how much memory, how
large the artifact is, how long loading takes, and what memory it takes besides its weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mvlm.bench.docs_table import write_table
from mvlm.models.model_zoo import CLIP_NAME, PUBLISHED_MODELS, find_published_model
from mvlm.runtime.start_module import module_command

DOCUMENT = Path("docs/models.md")
_SEEING = tuple(published.name for published in PUBLISHED_MODELS.values() if published.projector)


@dataclass(frozen=True)
class Footprint:
    """What one model costs.

    Attributes:
        name: The model.
        checkpoint_bytes: Of its folder, and its tower's.
        compile_seconds: Wall time of `mvlm compile`.
        compile_peak_bytes: Its largest resident memory.
        artifact_bytes: Of the artifact.
        load_seconds: From the start of loading a verified, warm artifact to a model that answers.
        anonymous_bytes: Resident memory that is not files, after an image and a prompt of 2,048
            positions.
        cache_bytes: Of keys and values in a full context: a part of that.
    """

    name: str
    checkpoint_bytes: int
    compile_seconds: float
    compile_peak_bytes: int
    artifact_bytes: int
    load_seconds: float
    anonymous_bytes: int
    cache_bytes: int


def measure(name: str, work: Path, options: Sequence[str] = ()) -> Footprint:
    """Write a checkpoint, compile it, open it; only the artifact is left in `work`.

    Args:
        name: A published model.
        work: A folder with room for checkpoint and artifact.
        options: More of `mvlm compile`.
    """
    published = find_published_model(name)
    checkpoint, tower, artifact = (work / part for part in (name, CLIP_NAME, f"{name}-artifact"))
    run_mvlm("synth", name, "-o", str(checkpoint))
    sizes = folder_bytes(checkpoint)
    if published.projector and not published.tower_inside:
        if not tower.exists():
            run_mvlm("synth", CLIP_NAME, "-o", str(tower))
        sizes += folder_bytes(tower)
    begin = time.perf_counter()
    peak = run_mvlm("compile", str(checkpoint), "-o", str(artifact), *options)
    seconds = time.perf_counter() - begin
    shutil.rmtree(checkpoint)
    opened = subprocess.run(
        module_command("mvlm.bench.studies.load_time", str(artifact)),
        check=True,
        stdout=subprocess.PIPE,
    )
    found = json.loads(opened.stdout)
    return Footprint(
        name,
        sizes,
        seconds,
        peak,
        folder_bytes(artifact),
        found["load_seconds"],
        found["anonymous_bytes"],
        found["cache_bytes"],
    )


def run_mvlm(*arguments: str) -> int:
    """Run a command and return the peak of its resident memory, in bytes."""
    command = module_command("mvlm.cli", *arguments)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(child.returncode)
    return usage.ru_maxrss * 1024


def folder_bytes(folder: Path) -> int:
    """Return what the files of a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def table(results: Sequence[Footprint]) -> str:
    """Write results as Markdown."""
    lines = [
        "| model | checkpoint | compile time | compile memory | artifact | load | other memory "
        "| KV cache |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        cells = [
            result.name,
            f"{result.checkpoint_bytes / 1e9:.2f} GB",
            f"{result.compile_seconds:.0f} s",
            f"{result.compile_peak_bytes / 1e9:.2f} GB",
            f"{result.artifact_bytes / 1e9:.2f} GB",
            f"{result.load_seconds:.2f} s",
            f"{result.anonymous_bytes / 1e6:.0f} MB",
            f"{result.cache_bytes / 1e6:.0f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print the table or put it into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.footprint", description=__doc__
    )
    parser.add_argument("names", nargs="*", default=_SEEING, help="published models")
    parser.add_argument("--work", type=Path, default=Path("build/footprint"))
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results = []
    for name in options.names:
        results.append(measure(name, options.work))
        print(table(results[-1:]).splitlines()[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if options.write:
        write_table(DOCUMENT, "footprint", table(results))


if __name__ == "__main__":
    main()
