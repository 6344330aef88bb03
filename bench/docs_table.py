"""Writes a measured table into its place in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from mvlm.runtime.errors import UsageError


def write_table(document: Path, mark: str, table: str) -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- /mark -->``.

    Raises:
        UsageError: The document is not there, or has no such place.
    """
    place = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.DOTALL)
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    if not place.search(text):
        raise UsageError(
            "no place for the table", expected=f"<!-- {mark} --> and its end in {document}"
        )
    document.write_text(place.sub(lambda _: table, text), encoding="utf-8")
