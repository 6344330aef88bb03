"""Writes the tables of configuration keys: ``python -m mvlm.models.keys_table``.

A test compares them with what is in the documentation.
"""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path

from mvlm.models.config.keys import TABLES, Key, KeyTable, Role

DOCUMENT = Path("docs/models.md")
_PLACE = re.compile(r"(?<=keys_table` -->\n).*?(?=<!-- /keys -->)", re.DOTALL)
_ROLES: tuple[Role, ...] = ("used", "fixed", "reported", "ignored")


def tables() -> str:
    """Return the tables as Markdown."""
    return "\n".join(_table(table) for table in TABLES)


def written(text: str) -> str:
    """Return the document with the tables in their place."""
    return _PLACE.sub(lambda _: tables(), text)


def _table(table: KeyTable) -> str:
    lines = [f"**{table.title}**", "", "| keys | treatment | note |", "|---|---|---|"]
    ordered = sorted(table.keys, key=lambda key: _ROLES.index(key.role))
    for _, keys in groupby(ordered, lambda key: (key.role, key.note, key.values)):
        group = list(keys)
        names = ", ".join(f"`{name}`" for key in group for name in key.names)
        lines.append(f"| {names} | {_role(group[0])} | {group[0].note} |")
    return "\n".join(lines) + "\n"


def _role(key: Key) -> str:
    values = " or ".join(f"`{json.dumps(value)}`" for value in key.values)
    if key.role == "fixed":
        return f"must be {values}" if values else "must be absent"
    if key.role == "reported" and values:
        return f"reported unless {values}"
    return key.role


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
