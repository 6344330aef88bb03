"""Puts a measured table into its place in the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def write_table(document: Path, mark: str, table: str) -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- /mark -->``."""
    place = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.DOTALL)
    text = document.read_text(encoding="utf-8")
    document.write_text(place.sub(lambda _: table, text), encoding="utf-8")
