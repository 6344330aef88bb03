"""Artifacts of elsewhere: whole, with a manifest that says something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.artifact.layout import MANIFEST


def edit_manifest(artifact: Path, section: str, key: str, value: object) -> None:
    """Change one value of a manifest, and its digest with it."""
    manifest = read_manifest(artifact)
    edited = replace(getattr(manifest, section), **{key: value})
    changed = replace(manifest, **{section: edited})
    (artifact / MANIFEST).write_bytes(changed.to_bytes())
