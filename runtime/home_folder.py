"""The user's home folder, which a service or a container may not have."""

from __future__ import annotations

import os
from pathlib import Path

# As Debian calls the home of accounts that have none.
_ABSENT = "/nonexistent"


def home_folder() -> Path | None:
    """Return the home folder, or None where there is none.

    Neither ``$HOME`` nor the user database names one, or the one that is named does not exist.
    """
    try:
        home = Path.home()
        return home if home.is_dir() else None
    except (RuntimeError, PermissionError):
        return None


def name_absent_home() -> None:
    """Set ``$HOME`` for this process where no home is known: TVM cannot be imported otherwise."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _ABSENT
