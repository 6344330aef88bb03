"""Lets every verb read its paths in the same way, by :mod:`mvlm.cli.shared.user_path`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from mvlm.cli.shared.user_path import user_path

# Options whose files or folders we write: a URL there is no download that was forgotten.
_WRITTEN = ("output", "dump", "write", "plot")
_DESCRIPTION = ".toml"


def with_user_paths(command: Callable[..., None]) -> Callable[..., None]:
    """Let a verb's parameters of type `Path` be read by `user_path`.

    Typer reads a parameter by the `parser` of its annotation, which is set here, so that no verb
    can forget it. The annotations are resolved first: as strings, each look at them makes new ones.
    """
    hints = get_type_hints(command, include_extras=True)
    for name, hint in hints.items():
        if get_origin(hint) is not Annotated:
            continue
        kind, *metadata = get_args(hint)
        if kind is Path or Path in get_args(kind) or list[Path] in get_args(kind):
            for each in metadata:
                each.parser = _reader(_shown_name(name, each), name in _WRITTEN)
    command.__annotations__ = hints
    return command


def target_name(text: str) -> str:
    """Return a device's name as it is, and the path of a device's description as it is meant."""
    return str(user_path(text, "--target")) if text.endswith(_DESCRIPTION) else text


def store_url(text: str) -> str:
    """Return a store's URL as it is, and the path of a store's folder as it is meant."""
    return text if "://" in text else str(user_path(text, "--store"))


def _reader(what: str, is_written: bool) -> Callable[[str], Path]:
    def path(text: str) -> Path:
        return user_path(text, what, is_written=is_written)

    return path


def _shown_name(name: str, parameter: Any) -> str:
    """Return what a user calls a parameter: the option, or an argument's metavar."""
    options = [each for each in parameter.param_decls or () if each.startswith("--")]
    if options:
        return str(options[0])
    if isinstance(parameter, OptionInfo):
        return f"--{name.replace('_', '-')}"
    return str(parameter.metavar or name)
