"""JSON configuration files of a checkpoint, and checks of their values.

Files are read bounded, with errors that name the file and the key. A value comes straight from a
file, so its type is checked as well as its range, by the configuration dataclasses too. A bool is
not a number here, although Python counts it as one, and a NaN fails every range.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mvlm.runtime.errors import ConfigError
from mvlm.runtime.input_file import is_present, refuse_lfs_pointer

# The largest configuration file of a published model is some tens of kilobytes; weight indexes of
# very large models reach a few megabytes.
MAX_JSON_BYTES = 16 * 2**20

Built = TypeVar("Built")

_FIX = "Correct the file, or download it again."


class JsonConfig:
    """The object in a JSON configuration file, or an object nested in it.

    Args:
        name: How errors call it: the file's path, and the key inside it where it is nested.
        values: The object itself.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = values

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default` where it is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def require(self, key: str) -> Any:
        """The value of `key`.

        Raises:
            ConfigError: It is absent or null.
        """
        if key not in self:
            raise ConfigError(f"{self.name} has no `{key}`", fix=_FIX)
        return self.values[key]

    def flag(self, key: str, default: bool) -> bool:
        """The value of `key`, which must be true or false where it is given."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """The value of `key`, which must be a whole number from `low` to `high`."""
        value = self.require(key)
        self.build(check_integer, key=key, value=value, low=low, high=high)
        return int(value)

    def names(self, key: str, most: int) -> tuple[str, ...]:
        """The list of at most `most` strings under `key`; empty where it is absent or null."""
        value = self.get(key, [])
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(isinstance(each, str) for each in value)
        ):
            self.refuse(key, f"a list of at most {most} strings")
        return tuple(value)

    def section(self, key: str) -> JsonConfig:
        """The object under `key`."""
        value = self.require(key)
        if not isinstance(value, dict):
            self.refuse(key, "an object")
        return JsonConfig(f"{self.name} at `{key}`", value)

    def refuse(self, key: str, expected: object) -> NoReturn:
        """Raise a :class:`ConfigError` on the value of `key`."""
        found = short_repr(self.values[key]) if key in self.values else "nothing"
        raise ConfigError(f"{self.name}: `{key}`", expected=expected, found=found, fix=_FIX)

    def build(self, make: Callable[..., Built], **fields: Any) -> Built:
        """Call `make(**fields)`, adding this object's name to its errors."""
        try:
            return make(**fields)
        except ConfigError as error:
            raise ConfigError(
                f"{self.name}: {error.problem}",
                expected=error.expected,
                found=error.found,
                fix=error.fix or _FIX,
            ) from None


def read_json_config(path: Path) -> JsonConfig:
    """Read a JSON file that must hold an object.

    Raises:
        ConfigError: The file is absent, a broken link or a Git LFS pointer, too large, not JSON, or
            not an object.
    """
    if not is_present(path, ConfigError):
        raise ConfigError(
            f"{path} is missing", fix="Give the folder of a whole Hugging Face style checkpoint."
        )
    data = _read(path)
    refuse_lfs_pointer(path, data, ConfigError)
    try:
        values = json.loads(data)
    # An untrusted file can be no UTF-8, no JSON, too many digits (ValueError all three), or nested
    # too deeply.
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error})", fix=_FIX) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}", expected="a JSON object", found=type(values).__name__, fix=_FIX
        )
    return JsonConfig(str(path), values)


def read_optional_json_config(path: Path) -> JsonConfig:
    """Like :func:`read_json_config`, but a file that is absent reads as an empty object."""
    there = is_present(path, ConfigError) or path.exists()  # a folder of that name is refused
    return read_json_config(path) if there else JsonConfig(str(path), {})


def check_integer(key: str, value: object, low: int, high: int) -> None:
    """Refuse anything but a whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(
            f"`{key}` is not usable",
            expected=f"a whole number from {low} to {high}",
            found=short_repr(value),
        )


def check_number(key: str, value: object, low: float, high: float) -> None:
    """Refuse anything but a finite number from `low` to `high`."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(
            f"`{key}` is not usable",
            expected=f"a number from {low:g} to {high:g}",
            found=short_repr(value),
        )


def check_choice(key: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is none of `choices`; `True` is not taken for 1."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ConfigError(
            f"`{key}` is not supported",
            expected=" or ".join(repr(choice) for choice in choices),
            found=short_repr(value),
        )


def short_repr(value: object) -> str:
    """Describe a value from a file, however long it is, on one short line."""
    return reprlib.repr(value)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    if len(data) > MAX_JSON_BYTES:
        raise ConfigError(
            f"{path} is too large",
            expected=f"at most {MAX_JSON_BYTES} bytes",
            found=path.stat().st_size,
        )
    return data
