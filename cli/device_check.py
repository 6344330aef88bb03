"""``mvlm device-check``: verify, chat and measure on a device, into one file to send back."""

from __future__ import annotations

import os
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.options import (
    Artifact,
    Debug,
    Json,
    PromptTokens,
    Runs,
    Threads,
    Tokens,
)
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import show, show_json

EXAMPLES = (
    "mvlm device-check mobilevlm-kryo -o report.json",
    "mvlm device-check artifact --image mine.jpg --threads 4 -o report.json",
)


def command(
    artifact: Artifact,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The report; default: device-report.json."
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An image to ask about; default: the bundle's."),
    ] = None,
    threads: Threads = None,
    runs: Runs = 5,
    prompt_tokens: PromptTokens = 200,
    tokens: Tokens = 64,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Verify and measure an artifact on its device, and write a report.

    It verifies every file, asks about an image, measures speeds and the memory's read bandwidth,
    and records the conditions: governor, clocks, temperatures before and after, power mode,
    threads. `mvlm bench --from-report` makes a table of reports.
    """
    from mvlm.bench.device_check import check_device
    from mvlm.bench.device_report import read_device_report, table
    from mvlm.bench.measure import MeasurementPlan
    from mvlm.runtime.atomic_write import atomic_write
    from mvlm.runtime.errors import UsageError

    path = Path("device-report.json") if output is None else output
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK):  # before minutes of measuring are lost
        found = f"{folder}, which is " + ("not writable" if folder.is_dir() else "no folder")
        raise UsageError("--output", expected="a file in a folder that can be written", found=found)
    shown = image or _bundled_image(artifact)
    with progress_bars() as progress:
        plan = MeasurementPlan(runs, prompt_tokens, tokens)
        document = check_device(artifact, shown, plan, threads, progress)
    with atomic_write(path) as file:
        file.write((dumps(document, indent=1) + "\n").encode())
    if json:
        show_json({"report": str(path), **document})
        return
    show(table([read_device_report(path)]), end="")
    show(f"\n{path} holds everything: send it back")


def _bundled_image(artifact: Path) -> Path | None:
    """Return the image next to an artifact in a bundle, if it is in one."""
    path = artifact.resolve().parent / "images" / "demo.png"
    return path if path.is_file() else None
