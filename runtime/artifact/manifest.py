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
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mvlm.runtime.artifact.json_object import JsonObject, build, parse_json_object, read_bounded
from mvlm.runtime.artifact.layout import (
    MANIFEST,
    MAX_FILES,
    MAX_JSON_BYTES,
    REQUIRED_FILES,
    RUNTIME_LIBRARY,
)
from mvlm.runtime.errors import ArtifactError

SCHEMA_VERSION = 6
_PARTS = ("language", "embedding", "head", "vision", "cache")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5})?")


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
class Requirements:
    """What a device must have, apart from the CPU's features.

    Attributes:
        platform: The system: ``linux`` or ``android``.
        libc: The oldest C library: glibc's version, on Android the API level.
        page_bytes: The largest page of memory for which the libraries are linked.
        memory_bytes: Weights and working memory; the KV cache comes on top.
    """

    platform: str
    libc: str
    page_bytes: int
    memory_bytes: int

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.libc):
            raise ValueError(f"libc {self.libc!r:.40} is no version")
        for key in ("page_bytes", "memory_bytes"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} is negative")


@dataclass(frozen=True)
class TargetEntry:
    """What the code was compiled for.

    Attributes:
        name: The target's name on the command line.
        architecture: The CPU's, as ``uname -m`` says it.
        features: The CPU features that the code uses, by /proc/cpuinfo's names.
        device: Where the kernels run, by DLPack's name: ``cpu``.
        tvm: The whole TVM target.
        requirements: What else the device must have.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    device: str
    tvm: Mapping[str, Any]
    requirements: Requirements


@dataclass(frozen=True)
class AbiEntry:
    """What must agree between the compiler's side and the runtime's.

    Attributes:
        tvm: Version of TVM that generated the code.
        tvm_ffi: Version of apache-tvm-ffi that code and runtime library were linked for.
        libtvm_runtime: sha256 of the runtime library, in hex.
    """

    tvm: str
    tvm_ffi: str
    libtvm_runtime: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact is.

    Attributes:
        model: Name, family, shape and parameter count, for people and programs.
        quantization: The schemes of the decoder's layers (``language``), of its embedding table
            and output head (``embedding``, ``head``) and of tower and projector (``vision``), and
            the KV cache's storage (``cache``).
        target: What it was compiled for.
        abi: The versions that it needs.
        files: Every file but the manifest itself.
        provenance: What it was made from: digests of the checkpoint and of the compiler's source,
            and the toolchain.
        evidence: What was measured on it.
        schema: Version of this format.
    """

    model: Mapping[str, Any]
    quantization: Mapping[str, str]
    target: TargetEntry
    abi: AbiEntry
    files: tuple[FileEntry, ...]
    provenance: Mapping[str, Any]
    evidence: Mapping[str, Any]
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
        if self.file(RUNTIME_LIBRARY).sha256 != self.abi.libtvm_runtime:
            raise ValueError(f"{RUNTIME_LIBRARY} is not the library that the ABI names")

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        values = asdict(self)
        values["files"] = [asdict(entry) for entry in self.files]
        values["target"]["features"] = list(self.target.features)
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
    target, abi = document.child("target"), document.child("abi")
    quantization = document.child("quantization")
    requirements = target.child("requirements")
    return Manifest(
        model=document.get("model", dict),
        quantization={part: quantization.get(part, str) for part in _PARTS},
        target=TargetEntry(
            name=target.get("name", str),
            architecture=target.get("architecture", str),
            features=target.list_of("features", str),
            device=target.get("device", str),
            tvm=target.get("tvm", dict),
            requirements=Requirements(
                platform=requirements.get("platform", str),
                libc=requirements.get("libc", str),
                page_bytes=requirements.get("page_bytes", int),
                memory_bytes=requirements.get("memory_bytes", int),
            ),
        ),
        abi=AbiEntry(**{key: abi.get(key, str) for key in ("tvm", "tvm_ffi", "libtvm_runtime")}),
        files=parse_entries(document.children("files")),
        provenance=document.get("provenance", dict),
        evidence=document.get("evidence", dict),
    )
