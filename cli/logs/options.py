"""What the verbs for logs are given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Logs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Folders of logs; default: the user's, and those that come with mvlm.",
    ),
]
Log = Annotated[Path, typer.Argument(metavar="LOG", help="A log's folder.", show_default=False)]
