"""A path as a person writes it: ``~``, ``file://`` URLs, and what is no path at all.

A shell expands ``~`` only at the beginning of a word, so that ``--image=~/x.png`` arrives as it is.
File managers put ``file://`` URLs on the clipboard. Other URLs are refused: nothing here downloads,
and :class:`pathlib.Path` would turn ``https://`` into ``https:/`` in every message. Every verb's
paths are read so: :func:`with_user_paths` sees to it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import unquote_to_bytes, urlsplit

from typer.models import OptionInfo

from mvlm.runtime.errors import UsageError

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:|file:)", re.IGNORECASE)
_HUB = re.compile(r"https?://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+)/?", re.IGNORECASE)
# A data URL holds a whole file.
_MOST_SHOWN = 200
# Options whose files or folders we write: a URL there is no download that was forgotten.
_WRITTEN = ("output", "dump", "write", "plot")
_DESCRIPTION = ".toml"


def user_path(text: str, what: str = "the path", *, is_written: bool = False) -> Path:
    """Return the path that a person means.

    What exists under exactly this name is meant, whatever it looks like. Otherwise a ``~`` or
    ``~name`` at the beginning is that user's home, where there is one, and a ``file:`` URL of this
    machine is its path (RFC 8089), percent-decoded.

    Args:
        text: What was typed.
        what: What asked for it, such as ``--image``, for the message.
        is_written: Whether something is written there, so that downloading is no remedy.

    Raises:
        UsageError: It is empty, a URL, or a ``file:`` URL of another machine.
    """
    if not text:
        raise UsageError(what, expected="a path", found="an empty text")
    if os.path.lexists(text):
        return Path(text)
    if _URL.match(text):
        if text[:5].lower() == "file:":
            return _local(text, what)
        raise UsageError(
            f"{what} takes a path on this machine",
            expected="a file or folder",
            found=f"the URL {_shortened(text)}",
            fix=None if is_written else _download(text),
        )
    # Not Path.expanduser, which raises where there is no such user or no home.
    return Path(os.path.expanduser(text))  # noqa: PTH111


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


def path_or_server_url(text: str) -> str:
    """Return a server's URL as it is, and a path as it is meant; a model of the hub is neither."""
    return text if is_server_url(text) else str(user_path(text, "ARTIFACT|MODEL|URL"))


def is_server_url(text: str) -> bool:
    """Whether a text is a server's address."""
    is_http = text.lower().startswith(("http://", "https://"))
    return is_http and not _HUB.match(text) and not os.path.lexists(text)


def store_url(text: str) -> str:
    """Return a store's URL as it is, and the path of a store's folder as it is meant."""
    return text if "://" in text else str(user_path(text, "--store"))


def _local(url: str, what: str) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as a bracket without its other half
        parts = urlsplit("file:")
    decoded = os.fsdecode(unquote_to_bytes(parts.path))
    if (
        parts.netloc.lower() not in ("", "localhost")
        or not decoded.startswith("/")
        or parts.query
        or parts.fragment
        or "\0" in decoded
    ):
        raise UsageError(
            f"{what} takes a path on this machine",
            expected="a path, or file:///PATH with ? and # as %3F and %23",
            found=_shortened(url),
        )
    return Path(decoded)


def _download(url: str) -> str | None:
    if hub := _HUB.fullmatch(url):
        name = hub.group(1)
        return f"Download it first: `hf download {name} --local-dir {name.partition('/')[2]}`."
    if url.lower().startswith(("http://", "https://")) and len(url) <= _MOST_SHOWN:
        return f"Download it first: `curl -L -O {shlex.quote(url)}`."
    return "Save it as a file first."


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


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
