"""What finished steps left: a document for each, written when all of its files are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mvlm.compile.jobs.states import SCHEMA_VERSION, require_schema
from mvlm.runtime.artifact.json_object import JsonObject, build, parse_json_object
from mvlm.runtime.artifact.layout import MANIFEST, MAX_FILES, MAX_JSON_BYTES
from mvlm.runtime.artifact.manifest import FileEntry, Manifest, parse_entries, parse_manifest
from mvlm.runtime.errors import ArtifactError

# A manifest as a string of JSON, in which quotes take two bytes.
MAX_RESULT_BYTES = 4 * MAX_JSON_BYTES
_MAX_NAME = 1_000


@dataclass(frozen=True)
class ArtifactResult:
    """A finished artifact.

    Attributes:
        key: The job's.
        name: The job's, for people.
        manifest: The artifact's.
        provenance: Who made it and how, for people: the run, the machine, seconds, bytes of memory.
    """

    key: str
    name: str
    manifest: Manifest
    provenance: Mapping[str, Any]

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The files that it needs in the store."""
        return self.manifest.files

    def to_bytes(self) -> bytes:
        """Return the document."""
        return _document(
            key=self.key,
            name=self.name,
            manifest=self.manifest.to_bytes().decode(),
            provenance=dict(self.provenance),
        )


@dataclass(frozen=True)
class WeightsResult:
    """Packed weights, which the artifacts of all devices share.

    Attributes:
        key: The step's.
        name: The step's, for people.
        checkpoint: The digest of the checkpoint that they were made of.
        files: Weights, index and tokenizer, by their places in an artifact.
        provenance: As an artifact's.
    """

    key: str
    name: str
    checkpoint: str
    files: tuple[FileEntry, ...]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.files]
        if not paths or len(paths) > MAX_FILES or len(set(paths)) != len(paths):
            raise ValueError(f"{len(paths)} files")
        if MANIFEST in paths:
            raise ValueError(f"{MANIFEST} is no file of weights")

    def to_bytes(self) -> bytes:
        """Return the document."""
        return _document(
            key=self.key,
            name=self.name,
            checkpoint=self.checkpoint,
            files=[asdict(entry) for entry in self.files],
            provenance=dict(self.provenance),
        )


def parse_artifact(data: bytes, key: str, where: str) -> ArtifactResult:
    """Read an artifact's document.

    Raises:
        ArtifactError: It breaks the format, or is another job's.
    """
    document = _parse(data, key, where)
    manifest = parse_manifest(document.get("manifest", str).encode(), f"{where}: manifest")
    return ArtifactResult(key, _name(document), manifest, document.get("provenance", dict))


def parse_weights(data: bytes, key: str, where: str) -> WeightsResult:
    """Read a document of packed weights.

    Raises:
        ArtifactError: It breaks the format, or is another step's.
    """
    document = _parse(data, key, where)
    return build(
        where,
        lambda: WeightsResult(
            key,
            _name(document),
            document.get("checkpoint", str),
            parse_entries(document.children("files")),
            document.get("provenance", dict),
        ),
    )


def total_bytes(files: Iterable[FileEntry]) -> int:
    """Return what files take."""
    return sum(entry.size for entry in files)


def _document(**values: Any) -> bytes:
    return json.dumps({"schema": SCHEMA_VERSION} | values, sort_keys=True).encode()


def _parse(data: bytes, key: str, where: str) -> JsonObject:
    if len(data) > MAX_RESULT_BYTES:
        raise ArtifactError(f"{where} is too large", expected=f"at most {MAX_RESULT_BYTES} bytes")
    document = parse_json_object(data, where)
    require_schema(document, where)
    if (found := document.get("key", str)) != key:
        raise ArtifactError(f"{where} is not what its name says", expected=key, found=found)
    return document


def _name(document: JsonObject) -> str:
    return document.get("name", str)[:_MAX_NAME]
