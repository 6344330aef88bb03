"""The options of the verbs for logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Logs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Folders of logs; default: the user's own, and those that mvlm ships.",
    ),
]
Log = Annotated[Path, typer.Argument(metavar="LOG", help="A log's folder.", show_default=False)]
