"""Reads a target's description from a TOML file: every key known, every value of its type.

The file has the fields of :class:`TargetDescription` as its keys and tables, and ``schema = 1``.
"""

from __future__ import annotations

from pathlib import Path

from mvlm.runtime.errors import TargetError
from mvlm.runtime.targets.description import TargetDescription
from mvlm.runtime.toml_file import TomlFile, shown

SCHEMA_VERSION = 1
_FIX = "`mvlm targets --example` prints a description that is right."


def read_description(path: Path) -> TargetDescription:
    """Read a target's description.

    Raises:
        UsageError: There is no such file.
        TargetError: It is no TOML, or a key is unknown, missing or wrong; says which.
    """
    file = TomlFile(path, "the target", TargetError, _FIX)
    document = file.parse()
    schema = document.pop("schema", None)
    if schema != SCHEMA_VERSION or isinstance(schema, bool):
        raise file.wrong("schema", str(SCHEMA_VERSION), shown(schema))
    return file.table(TargetDescription, document)
