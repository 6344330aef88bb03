"""The version of the documents in a store: runs and results."""

from __future__ import annotations

from mvlm.runtime.artifact.json_object import JsonObject
from mvlm.runtime.errors import ArtifactError

SCHEMA_VERSION = 2


def require_schema(document: JsonObject, where: str) -> None:
    """Refuse a document that another version of mvlm wrote.

    Raises:
        ArtifactError: Its version is not ours, or missing.
    """
    found = document.get("schema", int)
    if found != SCHEMA_VERSION:
        raise ArtifactError(
            f"{where} was written by another version of mvlm",
            expected=f"schema {SCHEMA_VERSION}",
            found=f"schema {found}",
            fix="Run the matrix again with this version, `mvlm jobs run MATRIX --store URL`; or "
            "read it with the version that wrote it.",
        )
