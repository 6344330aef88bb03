"""A board of this machine's own architecture, for which everything is here."""

from __future__ import annotations

import platform
from pathlib import Path

_LLVM = {"x86_64": "x86-64", "aarch64": "generic"}


def write_board(path: Path) -> Path:
    """Write the description of a plain board; its code runs on this machine."""
    architecture = platform.machine()
    path.write_text(
        f"""
schema = 1
name = "{path.stem}"
summary = "a plain board"
kernels = "cpu"

[cpu]
architecture = "{architecture}"
llvm = "{_LLVM[architecture]}"

[memory]
gigabytes_s = 10
gigabytes = 4
""",
        encoding="utf-8",
    )
    return path
