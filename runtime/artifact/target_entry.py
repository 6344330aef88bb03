"""The manifest's entry for the target: the device, and what else the code needs to run there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from mvlm.runtime.artifact.json_object import JsonObject
from mvlm.runtime.device.requirements import (
    HOST,
    REQUIREMENTS,
    CpuRequirements,
    DeviceRequirements,
)
from mvlm.runtime.errors import ArtifactError

_VERSION = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5})?")

T = TypeVar("T")


@dataclass(frozen=True)
class Requirements:
    """What a device's system must have, and its memory.

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
class DeviceEntry:
    """The device that the kernels run on.

    Attributes:
        kind: One of `mvlm.runtime.device`: ``cpu``.
        requires: What is needed of a device of that kind, and of the CPU that calls it, by kind.
    """

    kind: str
    requires: Mapping[str, DeviceRequirements]

    def __post_init__(self) -> None:
        if self.requires.keys() != {HOST, self.kind}:
            raise ValueError(f"it requires {sorted(self.requires)!r:.80} for a {self.kind}")

    @property
    def cpu(self) -> CpuRequirements:
        """What is needed of the CPU."""
        found = self.requires[HOST]
        assert isinstance(found, CpuRequirements)
        return found


@dataclass(frozen=True)
class TargetEntry:
    """What the code was compiled for.

    Attributes:
        name: The target's name on the command line.
        device: Where the kernels run.
        tvm: The whole TVM target.
        requirements: What else the device must have.
    """

    name: str
    device: DeviceEntry
    tvm: Mapping[str, Any]
    requirements: Requirements

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        values = asdict(self)
        for required in values["device"]["requires"].values():
            required.update(
                (key, list(value)) for key, value in required.items() if isinstance(value, tuple)
            )
        return values


def parse_target(document: JsonObject) -> TargetEntry:
    """Read the entry.

    Raises:
        ArtifactError: A key is missing or wrong, or the kind of device is not known.
        ValueError: A value is impossible.
    """
    return TargetEntry(
        name=document.get("name", str),
        device=_parse_device(document.child("device")),
        tvm=document.get("tvm", dict),
        requirements=_parse_fields(document.child("requirements"), Requirements),
    )


def _parse_device(document: JsonObject) -> DeviceEntry:
    kind, requires = document.get("kind", str), document.child("requires")
    for name in (kind, *requires.values):
        if name not in REQUIREMENTS:
            raise ArtifactError(
                f"{document.where}: this mvlm does not know devices of that kind",
                expected=" or ".join(REQUIREMENTS),
                found=f"{name!r:.40}",
                fix="Install the mvlm that made the artifact, or compile it again with this one.",
            )
    return DeviceEntry(
        kind,
        {name: _parse_fields(requires.child(name), REQUIREMENTS[name]) for name in requires.values},
    )


def _parse_fields(document: JsonObject, entry: type[T]) -> T:
    """Read a dataclass whose fields are the keys; the manifest's reader refuses further keys."""
    types = get_type_hints(entry)
    return entry(
        **{
            field.name: document.list_of(field.name, str)
            if types[field.name] == tuple[str, ...]
            else document.get(field.name, types[field.name])
            for field in fields(entry)  # type: ignore[arg-type]
        }
    )
