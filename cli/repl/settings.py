"""The settings of ``/set``: how answers are decoded."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mvlm.cli.repl.nearest import nearest
from mvlm.runtime.errors import UsageError
from mvlm.runtime.sampling import SamplingParams

_DEFAULT = "default"


def _texts(given: str) -> tuple[str, ...]:
    return tuple(shlex.split(given))


SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "repetition_penalty": float,
    "seed": int,
    "max_tokens": int,
    "stop": _texts,
}


def changed(params: SamplingParams, name: str, value: str) -> SamplingParams:
    """Return the parameters with another value of one.

    Args:
        params: How answers were decoded so far.
        name: One of `SETTINGS`.
        value: As it was typed; ``default`` is the default one.

    Raises:
        UsageError: There is no such setting, or the value is not one of it.
    """
    if name not in SETTINGS:
        raise UsageError(
            f"no setting {name}", expected=", ".join(SETTINGS), fix=nearest(name, SETTINGS)
        )
    if value == _DEFAULT:
        read = getattr(SamplingParams(), name)
    else:
        try:
            read = SETTINGS[name](value)
        except (ValueError, OverflowError):
            kinds: dict[object, str] = {float: "a number", int: "a whole number"}
            kind = kinds.get(SETTINGS[name], "texts")
            raise UsageError(name, expected=f"{kind}, or default", found=repr(value)) from None
    values: dict[str, Any] = {name: read}
    return replace(params, **values)


def listed(params: SamplingParams) -> list[tuple[str, str]]:
    """Name and write all settings."""
    return [(name, _written(getattr(params, name))) for name in SETTINGS]


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "none"
    return "random" if value is None else str(value)
