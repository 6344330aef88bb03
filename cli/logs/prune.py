"""``mvlm logs prune``: keep the best measurements of a log."""

from __future__ import annotations

from typing import Annotated

import typer

from mvlm.cli.logs.options import Log
from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_json

EXAMPLES = ("mvlm logs prune tuning_logs/host-znver4 --keep 8",)


def command(
    log: Log,
    keep: Annotated[
        int, typer.Option(min=1, metavar="N", help="Measurements to keep of each kernel.")
    ] = 16,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Keep each kernel's fastest measurements, its default's and its winner's.

    The results are not changed; the curves of `mvlm logs show` get shorter.
    """
    from mvlm.compile.tuning_log.edit import prune_log

    before, after = prune_log(log, keep)
    if json:
        show_json({"log": str(log), "measurements": after, "removed": before - after})
        return
    show(f"{log}: {after} measurements are left of {before}")
