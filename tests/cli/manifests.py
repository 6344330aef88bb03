"""Artifacts of elsewhere: whole, with a manifest that says something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.artifact.layout import MANIFEST

ARCHITECTURE = "target.device.requires.cpu.architecture"
FEATURES = "target.device.requires.cpu.features"


def edit_manifest(artifact: Path, key: str, value: object) -> None:
    """Change one value of a manifest, and its digest with it.

    Args:
        artifact: The folder.
        key: The value's key, and those of the objects that it is in, with dots between.
        value: A plain JSON value.
    """
    values = read_manifest(artifact).to_json()
    *path, last = key.split(".")
    section = values
    for name in path:
        section = section[name]
    section[last] = value
    digest = hashlib.sha256(_canonical(values)).hexdigest()
    (artifact / MANIFEST).write_bytes(_canonical(values | {"digest": digest}))


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
