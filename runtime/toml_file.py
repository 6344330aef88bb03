"""Reads dataclasses from TOML files: every key known, every value of its type."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mvlm.runtime.errors import MvlmError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_MAX_BYTES = 1 << 20
_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


class FieldError(ValueError):
    """A value that a field cannot have; raised by a dataclass that is made of a table.

    Attributes:
        key: The field.
        expected: What would have been right.
        found: The value.
    """

    def __init__(self, key: str, expected: str, found: object) -> None:
        self.key, self.expected, self.found = key, expected, found
        super().__init__(f"{key}: expected {expected}, found {found}")


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return the known name that was likely meant, or all of them where none is near."""
    close = get_close_matches(name, known, 1)
    return close[0] if close else ", ".join(known)


class TomlFile:
    """One file.

    Args:
        path: The file.
        what: What it describes: ``the target``.
        error: What is raised where its content is wrong.
        fix: How to mend it.
    """

    def __init__(self, path: Path, what: str, error: type[MvlmError], fix: str) -> None:
        self.path, self._what, self._error, self._fix = path, what, error, fix

    def parse(self) -> dict[str, Any]:
        """Return the file's values.

        Raises:
            UsageError: There is no such file.
            MvlmError: It is too large, or no TOML.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            message = f"cannot read {self._what} {self.path}"
            raise UsageError(message, found=error.strerror) from None
        if len(data) > _MAX_BYTES:
            raise self._error(f"{self.path} is too large", expected=f"at most {_MAX_BYTES} bytes")
        try:
            values: dict[str, Any] = tomllib.loads(data.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise self._error(f"{self.path} is not valid TOML", found=str(error)[:120]) from None
        return values

    def table(self, kind: type[T], values: Mapping[str, Any], place: str = "") -> T:
        """Make a dataclass of a table.

        Args:
            kind: The dataclass.
            values: The table.
            place: What stands before the keys in messages: ``cpu.``.

        Raises:
            MvlmError: A key is unknown, missing or of another type; says which.
        """
        hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
        for key in values:
            if key not in known:
                raise self.wrong(place + key, nearest(key, known), "no such key")
        arguments = {
            key: self._value(hints[key], value, place + key) for key, value in values.items()
        }
        for name, field in known.items():
            if name not in values and field.default is MISSING:
                raise self.wrong(place + name, _name(hints[name]), "no such key")
        try:
            return kind(**arguments)
        except FieldError as error:
            raise self.wrong(place + error.key, error.expected, str(error.found)) from None

    def wrong(self, key: str, expected: str, found: str) -> MvlmError:
        """Return the error that says that a key is wrong."""
        return self._error(
            f"{self.path}: key {key.rstrip('.')!r} is wrong",
            expected=expected,
            found=found,
            fix=self._fix,
        )

    def _value(self, kind: Any, value: Any, key: str) -> Any:
        if get_origin(kind) is UnionType:  # the file leaves out what is None
            (kind,) = (each for each in get_args(kind) if each is not NoneType)
        if get_origin(kind) is tuple:
            if not isinstance(value, list):
                raise self.wrong(key, _name(kind), shown(value))
            item = get_args(kind)[0]
            return tuple(self._value(item, each, f"{key}[{i}]") for i, each in enumerate(value))
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind in _KINDS:
            if type(value) is not kind:
                raise self.wrong(key, _name(kind), shown(value))
            return value
        if not isinstance(value, dict):
            raise self.wrong(key, _name(kind), shown(value))
        return self.table(kind, value, f"{key}.")


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list, each {_name(get_args(kind)[0])}"
    return _KINDS.get(kind, "a table")


def shown(value: Any) -> str:
    """Write a value for an error's message."""
    return "no such key" if value is None else f"{type(value).__name__} {value!r:.60}"
