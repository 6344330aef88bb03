"""Paths for libraries that take text where the system takes bytes.

A Linux file name is any bytes. Python carries those that are not UTF-8 as lone surrogates
(PEP 383), which TVM and onnx refuse.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def utf8_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder by a path that is UTF-8: its own, or that of a link for the time of the block.

    Args:
        folder: It exists.
    """
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="mvlm-") as place:
            link = Path(place) / "folder"
            link.symlink_to(folder.absolute())
            yield link
    else:
        yield folder


def as_utf8(name: str) -> str:
    """Return a file's name as text that can be stored: U+FFFD stands for what is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
