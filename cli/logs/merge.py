"""``mvlm logs merge``: several logs of one target into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_json

EXAMPLES = ("mvlm logs merge laptop/host-znver4 ci/host-znver4 -o tuning_logs/host-znver4",)


def command(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="The logs' folders.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The merged log.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Merge logs of one target: all measurements, and each kernel's latest result.

    Logs of different targets, CPUs, thread counts or TVM versions are refused. The output may be
    one of the logs; the others are not changed.
    """
    from mvlm.compile.tuning_log.edit import merge_logs

    merged = merge_logs(logs, output)
    document = {
        "log": str(output),
        "measurements": len(merged.contents.records),
        "kernels": len(merged.provenance.results),
    }
    if json:
        show_json(document)
        return
    show(f"{output}: {document['measurements']} measurements of {document['kernels']} kernels")
