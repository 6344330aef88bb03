"""The folder in which everything is kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$MVLM_CACHE``, else ``$XDG_CACHE_HOME/mvlm``, else ``~/.cache/mvlm``."""
    chosen = os.environ.get("MVLM_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvlm"
