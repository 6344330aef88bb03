"""The manifest: its fields, its canonical form, and its strict reader.

The canonical form is UTF-8 JSON with sorted keys and no spaces, so that equal contents have equal
digests: :attr:`Manifest.digest` is the artifact's only true name. The file holds the canonical form
with that name under one more key, ``digest``, so that damage to the manifest itself shows too. It
shows accidents only: to detect tampering, compare the name with one from a trusted place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from mvlm.runtime.artifact.json_object import JsonObject, build, parse_json_object, read_bounded
from mvlm.runtime.artifact.layout import (
    LIBRARIES,
    MANIFEST,
    MAX_FILES,
    MAX_JSON_BYTES,
    MAX_RUNTIME_LIBRARIES,
    MODEL_LIBRARY,
    REQUIRED_FILES,
    RUNTIME_LIBRARY,
)
from mvlm.runtime.artifact.target_entry import TargetEntry, parse_target
from mvlm.runtime.errors import ArtifactError

SCHEMA_VERSION = 9
_PARTS = ("language", "embedding", "head", "vision", "cache")
_OPTIONAL_PARTS = ("bits",)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIBRARY = re.compile(r"lib[A-Za-z0-9_]{1,60}\.so")


@dataclass(frozen=True)
class FileEntry:
    """One file: its path within the artifact, its size in bytes and its sha256 in hex."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        inside = self.path == str(path) and not path.is_absolute() and ".." not in path.parts
        if not inside or "\\" in self.path or "\0" in self.path or not path.parts:
            raise ValueError(f"path {self.path!r} leads out of the artifact")
        if self.size < 0:
            raise ValueError(f"{self.path} has size {self.size}")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.path} has no sha256 of 64 hex digits")


@dataclass(frozen=True)
class AbiEntry:
    """What must agree between the compiler's side and the runtime's.

    Attributes:
        tvm: Version of TVM that generated the code.
        tvm_ffi: Version of apache-tvm-ffi that code and runtime libraries were linked for.
        runtime_libraries: The sha256 in hex of each library that is loaded before the model's, by
            its file's name in ``lib/``: TVM's runtime, and those that extend it.
    """

    tvm: str
    tvm_ffi: str
    runtime_libraries: Mapping[str, str]

    def __post_init__(self) -> None:
        count = len(self.runtime_libraries)
        if count > MAX_RUNTIME_LIBRARIES:
            raise ValueError(f"{count} runtime libraries, more than {MAX_RUNTIME_LIBRARIES}")
        for name in self.runtime_libraries:
            if not _LIBRARY.fullmatch(name):
                raise ValueError(f"{name!r:.80} is no name of a runtime library")

    @property
    def load_order(self) -> tuple[str, ...]:
        """The libraries' paths within the artifact: TVM's runtime, then the others by name."""
        paths = (f"{LIBRARIES}/{name}" for name in self.runtime_libraries)
        return tuple(sorted(paths, key=lambda path: (path != RUNTIME_LIBRARY, path)))


@dataclass(frozen=True)
class LayerEntry:
    """The schemes of one decoder layer: of attention, of the MLP's gate and up, and of its down."""

    attention: str
    gate_up: str
    down: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact is.

    Attributes:
        model: Name, family, shape and parameter count, for people and programs.
        quantization: The schemes of the decoder's layers (``language``), of its embedding table
            and output head (``embedding``, ``head``) and of tower and projector (``vision``), and
            the KV cache's storage (``cache``). Where layers differ in their schemes, ``language``
            has all of them, and ``bits`` says what a weight takes on average.
        target: What it was compiled for.
        abi: The versions that it needs.
        files: Every file but the manifest itself.
        provenance: What it was made from: digests of the checkpoint and of the compiler's source,
            and the toolchain.
        evidence: What was measured on it.
        layers: The schemes of the decoder's layers, from the first on; none where all have one.
        schema: Version of this format.
    """

    model: Mapping[str, Any]
    quantization: Mapping[str, str]
    target: TargetEntry
    abi: AbiEntry
    files: tuple[FileEntry, ...]
    provenance: Mapping[str, Any]
    evidence: Mapping[str, Any]
    layers: tuple[LayerEntry, ...] = ()
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.files]
        if len(paths) > MAX_FILES:
            raise ValueError(f"{len(paths)} files, more than {MAX_FILES}")
        if len(set(paths)) != len(paths):
            raise ValueError("a file is named twice")
        missing = [path for path in REQUIRED_FILES if path not in paths]
        if missing:
            raise ValueError("no entry for " + ", ".join(missing))
        self._check_libraries()

    def _check_libraries(self) -> None:
        """Hold the model's library and those that the ABI names to be all that there are."""
        named = {f"{LIBRARIES}/{name}": each for name, each in self.abi.runtime_libraries.items()}
        present = {
            entry.path: entry.sha256
            for entry in self.files
            if entry.path.endswith(".so") and entry.path != MODEL_LIBRARY
        }
        if differing := sorted({path for path, _ in named.items() ^ present.items()}):
            raise ValueError(f"{differing[0]} is not a library that the ABI names")
        if RUNTIME_LIBRARY not in named:
            raise ValueError(f"the ABI does not name {RUNTIME_LIBRARY}")

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        values = asdict(self)
        values["files"] = [asdict(entry) for entry in self.files]
        values["target"] = self.target.to_json()
        values["layers"] = [asdict(layer) for layer in self.layers]
        if not self.layers:
            del values["layers"]  # as before there were any
        return values

    def canonical(self) -> bytes:
        """Return the bytes that the digest is taken of."""
        return _canonical(self.to_json())

    def to_bytes(self) -> bytes:
        """Return the bytes that the file holds: the canonical form with its digest."""
        return _canonical(self.to_json() | {"digest": self.digest})

    @property
    def digest(self) -> str:
        """The sha256 of the canonical form, in hex."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def file(self, path: str) -> FileEntry:
        """Return the entry of a file."""
        return next(entry for entry in self.files if entry.path == path)


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json``; the other files are not touched.

    Raises:
        ArtifactError: There is none, or it breaks the format.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            f"{folder} is not an artifact",
            expected=f"a folder with {MANIFEST}",
            found="no such folder" if not folder.is_dir() else "none in it",
            fix="`mvlm compile MODEL -o DIR` makes one.",
        )
    return parse_manifest(read_bounded(path, MAX_JSON_BYTES), str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read and check a manifest's bytes; see :func:`read_manifest`.

    Args:
        data: No more than :data:`MAX_JSON_BYTES`.
        where: Where they come from, for the errors.

    Raises:
        ArtifactError: They break the format.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ArtifactError(f"{where} is too large", expected=f"at most {MAX_JSON_BYTES} bytes")
    document = parse_json_object(data, where)
    schema = document.get("schema", int)
    if schema != SCHEMA_VERSION:
        raise ArtifactError(
            f"{where} is of another format",
            expected=f"schema {SCHEMA_VERSION}",
            found=f"schema {schema}",
            fix="Compile the model again with this mvlm, or install the mvlm that made it.",
        )
    manifest = build(where, lambda: _parse(document))
    if not build(where, lambda: _is_whole(manifest, data)):
        raise ArtifactError(
            f"{where} is damaged",
            expected="the canonical form, with the digest that it names",
            found="other bytes",
            fix="Fetch or compile the artifact again.",
        )
    return manifest


def parse_entries(documents: Iterable[JsonObject]) -> tuple[FileEntry, ...]:
    """Read the entries of files.

    Raises:
        ArtifactError: A key is missing or wrong.
        ValueError: A value is impossible.
    """
    return tuple(
        FileEntry(each.get("path", str), each.get("size", int), each.get("sha256", str))
        for each in documents
    )


def _is_whole(manifest: Manifest, data: bytes) -> bool:
    """Whether a manifest was read from just these bytes."""
    try:
        return manifest.to_bytes() == data
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _canonical(values: Mapping[str, Any]) -> bytes:
    text = json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _parse(document: JsonObject) -> Manifest:
    quantization, abi = document.child("quantization"), document.child("abi")
    libraries = abi.child("runtime_libraries")
    return Manifest(
        model=document.get("model", dict),
        quantization={part: quantization.get(part, str) for part in _parts(quantization)},
        target=parse_target(document.child("target")),
        abi=AbiEntry(
            tvm=abi.get("tvm", str),
            tvm_ffi=abi.get("tvm_ffi", str),
            runtime_libraries={name: libraries.get(name, str) for name in libraries.values},
        ),
        files=parse_entries(document.children("files")),
        provenance=document.get("provenance", dict),
        evidence=document.get("evidence", dict),
        layers=_parse_layers(document),
    )


def _parts(quantization: JsonObject) -> Iterable[str]:
    return (*_PARTS, *(part for part in _OPTIONAL_PARTS if part in quantization.values))


def _parse_layers(document: JsonObject) -> tuple[LayerEntry, ...]:
    if "layers" not in document.values:
        return ()
    names = [field.name for field in fields(LayerEntry)]
    return tuple(
        LayerEntry(**{name: layer.get(name, str) for name in names})
        for layer in document.children("layers")
    )
