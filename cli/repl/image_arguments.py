"""What stands behind ``/image``: paths, quoted or not, patterns, ``file://`` URLs, or nothing."""

from __future__ import annotations

import glob
import os
import shlex
from pathlib import Path

from mvlm.cli.repl.clipboard import read_clipboard
from mvlm.cli.shared.user_path import user_path
from mvlm.runtime.errors import PromptError

_MOST_IMAGES = 16


def image_sources(typed: str) -> list[Path | bytes]:
    """Return the files that are meant, or the bytes of the one on the clipboard.

    Raises:
        PromptError: A pattern fits nothing or too much, or there is no image on the clipboard.
        UsageError: It is a URL of another machine.
    """
    if not typed:
        found = read_clipboard()
        return [found] if isinstance(found, bytes) else list(_files(found))
    return list(_files(typed))


def one_path(typed: str, command: str) -> Path:
    """Return the one file that a command takes.

    Raises:
        PromptError: None is named.
    """
    if not typed:
        raise PromptError(command, expected="the path of a file", found="nothing")
    words = _words(typed)
    return user_path(words[0] if len(words) == 1 else typed, command)


def _files(typed: str) -> list[Path]:
    found = list[Path]()
    for word in _words(typed):
        path = user_path(word, "/image")
        if glob.has_magic(str(path)) and not os.path.lexists(path):
            matches = sorted(glob.glob(str(path)))  # noqa: PTH207  # keeps the pattern's own form
            if not matches:
                raise PromptError("/image", expected="files that match", found=f"none like {word}")
            found += map(Path, matches)
        else:
            found.append(path)
    if len(found) > _MOST_IMAGES:
        raise PromptError(
            "/image", expected=f"at most {_MOST_IMAGES} images", found=f"{len(found)} files"
        )
    return found


def _words(typed: str) -> list[str]:
    """Split at blanks, by a shell's rules; what exists under the whole text is one path."""
    if os.path.lexists(os.path.expanduser(typed)):  # noqa: PTH111
        return [typed]
    try:
        words = shlex.split(typed)
    except ValueError:  # a quote without its other half
        return [typed]
    # A URL has no blanks, and its backslashes are its own.
    return words if words and not typed.startswith("file:") else [typed]
