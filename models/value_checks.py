"""Checks on single values, shared by the readers of files and the configuration dataclasses.

A value comes straight from a JSON file, so its type is checked as well as its range. A bool is
not a number here, although Python counts it as one, and a NaN fails every range.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection

from mvlm.runtime.errors import ConfigError


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
