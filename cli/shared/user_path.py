"""A path as a person writes it: ``~``, ``file://`` URLs, and what is no path at all.

A shell expands ``~`` only at the beginning of a word, so that ``--image=~/x.png`` arrives as it is.
File managers put ``file://`` URLs on the clipboard. Other URLs are refused: nothing here downloads,
and :class:`pathlib.Path` would turn ``https://`` into ``https:/`` in every message.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from mvlm.runtime.errors import UsageError

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:|file:)", re.IGNORECASE)
_HUB = re.compile(r"https?://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+)/?", re.IGNORECASE)
# A data URL holds a whole file.
_MOST_SHOWN = 200


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
