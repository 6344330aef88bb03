"""The folder in which everything is kept that can be made again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvlm.runtime.errors import TargetError, UsageError
from mvlm.runtime.folders import home_folder

VARIABLE = "MVLM_CACHE"
# How a user has things kept elsewhere: as a clause, and as a sentence.
ELSEWHERE = f"set {VARIABLE} to a folder that you can write to"
KEEP_ELSEWHERE = f"S{ELSEWHERE[1:]}."


@contextmanager
def looking_in_cache(what: str) -> Iterator[None]:
    """Within the block, which looks into the cache, say that there is none to look into.

    Args:
        what: What is looked for.

    Raises:
        TargetError: No cache folder is known, or it may not be read.
    """
    try:
        yield
    except (UsageError, PermissionError) as error:
        raise TargetError(
            f"{what} cannot be looked for",
            expected="a cache folder that can be read",
            found="none" if isinstance(error, UsageError) else error,
            fix=KEEP_ELSEWHERE,
        ) from None


def writing_advice(destination: Path) -> str:
    """Return how a user has an artifact written elsewhere than to `destination`, as a clause."""
    try:
        is_cached = destination.absolute().is_relative_to(cache_folder().absolute())
    except UsageError:
        is_cached = False
    return ELSEWHERE if is_cached else "name another place with -o"


def cache_folder() -> Path:
    """Return ``$MVLM_CACHE``, else ``$XDG_CACHE_HOME/mvlm``, else ``~/.cache/mvlm``.

    Raises:
        UsageError: None of them is known: there is no home folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    base, home = os.environ.get("XDG_CACHE_HOME"), home_folder()
    if base:
        return Path(base) / "mvlm"
    if home is None:
        raise UsageError(
            "no place is known to keep compiled models in",
            expected=f"{VARIABLE}, XDG_CACHE_HOME or a home folder",
            found="none of them",
            fix=KEEP_ELSEWHERE,
        )
    return home / ".cache" / "mvlm"
