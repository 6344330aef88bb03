"""Finds folders: that of a package, which is not imported for it, and the user's home."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

# As Debian calls the home of accounts that have none.
_ABSENT = "/nonexistent"


def package_folder(name: str) -> Path:
    """Return the folder of a package; only the packages that it lies in are imported.

    Raises:
        ModuleNotFoundError: There is none.
    """
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {name}", name=name)
    return Path(next(iter(spec.submodule_search_locations)))


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
