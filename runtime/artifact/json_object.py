"""Reads untrusted JSON objects: bounded, typed, with errors that name the file and the key.

Writes our own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mvlm.runtime.artifact.layout import MAX_JSON_BYTES
from mvlm.runtime.errors import ArtifactError, ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class JsonObject:
    """A JSON object, with the path to it for the errors.

    Attributes:
        values: The object.
        where: File, and key within it, of the object.
    """

    values: Mapping[str, Any]
    where: str

    def get(self, key: str, kind: type[T]) -> T:
        """Return the value under `key`.

        Raises:
            ArtifactError: It is absent, or not a `kind`. A bool is no int.
        """
        value = self.values.get(key)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if kind is float and isinstance(value, int) and not wrong_bool:
            value = float(value)
        if not isinstance(value, kind) or wrong_bool:
            found = f"{type(value).__name__} {value!r:.60}" if key in self.values else "no such key"
            raise ArtifactError(
                f"{self.where}: key {key!r} is wrong", expected=kind.__name__, found=found
            )
        return value

    def optional(self, key: str, kind: type[T]) -> T | None:
        """Return the value under `key`; None where it is absent, or null."""
        return None if self.values.get(key) is None else self.get(key, kind)

    def list_of(self, key: str, kind: type[T]) -> tuple[T, ...]:
        """Return the list under `key`, all of whose items are of one kind."""
        items = self.get(key, list)
        if any(
            not isinstance(i, kind) or (isinstance(i, bool) and kind is not bool) for i in items
        ):
            raise ArtifactError(
                f"{self.where}: key {key!r} is wrong", expected=f"a list of {kind.__name__}"
            )
        return tuple(items)

    def child(self, key: str) -> JsonObject:
        """Return the object under `key`."""
        return JsonObject(self.get(key, dict), f"{self.where}: {key}")

    def children(self, key: str) -> list[JsonObject]:
        """Return the list of objects under `key`."""
        items = self.list_of(key, dict)
        return [JsonObject(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(items)]


def read_json_object(path: Path) -> JsonObject:
    """Read a file that holds one JSON object.

    Raises:
        ArtifactError: It is absent, too large, no JSON, or no object.
    """
    return parse_json_object(read_bounded(path, MAX_JSON_BYTES), str(path))


def parse_json_object(data: bytes, where: str) -> JsonObject:
    """Parse one JSON object; see :func:`read_json_object`."""
    try:
        values = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where} is not valid JSON", found=str(error)[:120]) from None
    if not isinstance(values, dict):
        raise ArtifactError(
            f"{where} is wrong", expected="a JSON object", found=type(values).__name__
        )
    return JsonObject(values, where)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a whole file, but no more than `limit` bytes of it.

    Raises:
        ArtifactError: It cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path}",
            found=error.strerror,
            fix="Make the artifact again, or name its folder.",
        ) from None
    if len(data) > limit:
        raise ArtifactError(
            f"{path} is too large", expected=f"at most {limit} bytes", found="more than that"
        )
    return data


def build(where: str, make: Callable[[], T]) -> T:
    """Call a validating constructor, and name the file if it objects.

    Raises:
        ArtifactError: `make` raised ValueError or ConfigError.
    """
    try:
        return make()
    except (ValueError, ConfigError) as error:
        raise ArtifactError(f"{where} is wrong", found=str(error)) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write one of an artifact's documents."""
    path.write_text(json.dumps(values, sort_keys=True, indent=1) + "\n", encoding="utf-8")
