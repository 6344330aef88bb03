"""An image, or the path of one, from the clipboard, by the desktop's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from mvlm.runtime.errors import PromptError

_SECONDS = 5
_MOST_BYTES = 1 << 27
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff", "image/gif")
_TEXTS = ("text/uri-list", "text/plain;charset=utf-8", "UTF8_STRING", "text/plain")


def read_clipboard() -> bytes | str:
    """Return an image's file, or else a text.

    Raises:
        PromptError: There is no clipboard, no tool for it, or nothing on it.
    """
    if sys.platform == "darwin":
        return _read_mac()
    for variable, tool, listing, reading in (
        ("WAYLAND_DISPLAY", "wl-paste", ["--list-types"], ["--no-newline", "--type"]),
        (
            "DISPLAY",
            "xclip",
            ["-selection", "clipboard", "-o", "-t", "TARGETS"],
            ["-selection", "clipboard", "-o", "-t"],
        ),
    ):
        if os.environ.get(variable) and shutil.which(tool):
            return _read(tool, listing, reading)
    raise PromptError(
        "the clipboard cannot be read here",
        expected="a desktop with wl-paste or xclip",
        fix="Name a file: /image FILE.",
    )


def _read(tool: str, listing: Sequence[str], reading: Sequence[str]) -> bytes | str:
    kinds = _output([tool, *listing]).decode(errors="replace").splitlines()
    for kind in (*_IMAGES, *_TEXTS):
        if kind in kinds and (found := _output([tool, *reading, kind])):
            return found if kind in _IMAGES else _first_line(found)
    raise _nothing()


def _read_mac() -> bytes | str:
    if shutil.which("pngpaste") and (found := _output(["pngpaste", "-"])):
        return found
    script = "the clipboard as «class PNGf»"
    written = _output(["osascript", "-e", script]).decode(errors="replace")
    if "PNGf" in written:  # «data PNGf89504E47...»
        return bytes.fromhex(written.partition("PNGf")[2].rstrip("»\n "))
    if found := _output(["pbpaste"]):
        return _first_line(found)
    raise _nothing()


def _output(command: Sequence[str]) -> bytes:
    """Return what a tool prints; nothing where it fails."""
    with tempfile.TemporaryFile() as file:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return b""
        file.seek(0)
        return file.read(_MOST_BYTES) if done.returncode == 0 else b""


def _first_line(text: bytes) -> str:
    lines = os.fsdecode(text).strip().splitlines()
    return next((line for line in lines if not line.startswith("#")), "")


def _nothing() -> PromptError:
    return PromptError("/image", expected="an image or a path on the clipboard", found="neither")
