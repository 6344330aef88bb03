"""Where an installed package lies, without importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def package_folder(name: str) -> Path:
    """Return the folder of a package; only the packages that it lies in are imported.

    Raises:
        ModuleNotFoundError: There is none.
    """
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {name}", name=name)
    return Path(next(iter(spec.submodule_search_locations)))
