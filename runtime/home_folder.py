"""The user's home folder, which a service or a container may not have."""

from __future__ import annotations

from pathlib import Path


def home_folder() -> Path | None:
    """Return the home folder, or None where neither ``$HOME`` nor the user database names one."""
    try:
        return Path.home()
    except RuntimeError:
        return None
