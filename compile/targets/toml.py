"""Reads a target's description from a TOML file: every key known, every value of its type.

The file has the fields of :class:`TargetDescription` as its keys and tables, and ``schema = 1``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from mvlm.compile.targets.description import FieldError, TargetDescription
from mvlm.runtime.errors import TargetError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA_VERSION = 1
_MOST_BYTES = 1 << 20
_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def read_description(path: Path) -> TargetDescription:
    """Read a target's description.

    Raises:
        UsageError: There is no such file.
        TargetError: It is no TOML, or a key is unknown, missing or wrong; says which.
    """
    document = _parse(path)
    schema = document.pop("schema", None)
    if schema != SCHEMA_VERSION or isinstance(schema, bool):
        raise _wrong(path, "schema", str(SCHEMA_VERSION), _shown(schema))
    found = _Reader(path).table(TargetDescription, document, "")
    assert isinstance(found, TargetDescription)
    return found


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the target {path}", found=error.strerror) from None
    if len(data) > _MOST_BYTES:
        raise TargetError(f"{path} is too large", expected=f"at most {_MOST_BYTES} bytes")
    try:
        document: dict[str, Any] = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise TargetError(f"{path} is not valid TOML", found=str(error)[:120]) from None
    return document


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, kind: type[Any], values: Mapping[str, Any], place: str) -> Any:
        """Make a dataclass of a table."""
        hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
        for key in values:
            if key not in known:
                close = get_close_matches(key, known, 1)
                likely = close[0] if close else ", ".join(known)
                raise _wrong(self._path, place + key, likely, "no such key")
        arguments = {
            key: self._value(hints[key], value, place + key) for key, value in values.items()
        }
        for name, field in known.items():
            if name not in values and field.default is MISSING:
                raise _wrong(self._path, place + name, _name(hints[name]), "no such key")
        try:
            return kind(**arguments)
        except FieldError as error:
            key = place + error.key
            raise _wrong(self._path, key, error.expected, str(error.found)) from None

    def _value(self, kind: Any, value: Any, key: str) -> Any:
        if get_origin(kind) is UnionType:  # the file leaves out what is None
            (kind,) = (each for each in get_args(kind) if each is not NoneType)
        if get_origin(kind) is tuple:
            if not isinstance(value, list):
                raise _wrong(self._path, key, _name(kind), _shown(value))
            item = get_args(kind)[0]
            return tuple(self._value(item, each, f"{key}[{i}]") for i, each in enumerate(value))
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind in _KINDS:
            if type(value) is not kind:
                raise _wrong(self._path, key, _name(kind), _shown(value))
            return value
        if not isinstance(value, dict):
            raise _wrong(self._path, key, _name(kind), _shown(value))
        return self.table(kind, value, f"{key}.")


def _wrong(path: Path, key: str, expected: str, found: str) -> TargetError:
    return TargetError(
        f"{path}: key {key!r} is wrong",
        expected=expected,
        found=found,
        fix="`mvlm targets --example` prints a description that is right.",
    )


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list, each {_name(get_args(kind)[0])}"
    return _KINDS.get(kind, "a table")


def _shown(value: Any) -> str:
    return "no such key" if value is None else f"{type(value).__name__} {value!r:.60}"
