"""Where logs are: those that come with mvlm, and the user's own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mvlm.compile.tuning.log.files import FILE, FILES, MOST_BYTES
from mvlm.runtime.artifact.json_object import read_bounded, read_json_object
from mvlm.runtime.errors import ArtifactError, UsageError
from mvlm.runtime.home_folder import home_folder
from mvlm.runtime.package_folder import package_folder

VARIABLE = "MVLM_TUNING_LOGS"


def user_logs() -> Path:
    """Return ``$MVLM_TUNING_LOGS``, else ``$XDG_DATA_HOME/mvlm/tuning_logs``, else ``~/.local``'s.

    Not the cache: hours of a device's time are not made again easily.

    Raises:
        UsageError: None of them is known: there is no home folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    base, home = os.environ.get("XDG_DATA_HOME"), home_folder()
    if base:
        return Path(base) / "mvlm" / "tuning_logs"
    if home is None:
        raise UsageError(
            "no place is known to keep tuning logs in",
            expected=f"{VARIABLE}, XDG_DATA_HOME or a home folder",
            found="none of them",
            fix="Name a folder with --logs.",
        )
    return home / ".local" / "share" / "mvlm" / "tuning_logs"


def shipped_logs() -> Path | None:
    """Return the folder of the logs that come with mvlm, or None if this one brings none."""
    try:
        return package_folder("mvlm.tuning_logs")
    except ModuleNotFoundError:
        return None


def log_places(named: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """Return the folders that logs are looked for in, the one that is asked first first.

    Args:
        named: Those that somebody named; the user's own and those that come with mvlm if None.

    Raises:
        UsageError: One of those that were named has none.
    """
    if named is not None:
        for place in named:
            if not find_logs([place]):
                raise UsageError(
                    f"there is no tuning log in {place}",
                    expected=f"a folder with {FILE}, or one of such folders",
                    found="neither" if place.is_dir() else "no such folder",
                    fix="`mvlm logs list` shows those that there are.",
                )
        return tuple(named)
    places = []
    # Without a home folder, or with one that is another user's, this user has no logs.
    with suppress(UsageError, PermissionError):
        find_logs([user_logs()])
        places.append(user_logs())
    shipped = shipped_logs()
    return (*places, *([shipped] if shipped else []))


def find_logs(places: Iterable[Path]) -> list[Path]:
    """Return the logs in some folders; a folder may be a log itself."""
    found: list[Path] = []
    for place in places:
        if (place / FILE).is_file():
            found.append(place)
        elif place.is_dir():
            found += sorted(path.parent for path in place.glob(f"*/{FILE}"))
    return found


def logs_about(target: str, places: Iterable[Path]) -> list[Path]:
    """Return the logs of a target's name, whether they will be used or not.

    It costs milliseconds, without tvm.
    """
    found = []
    for folder in find_logs(places):
        with suppress(ArtifactError):  # it will not be used
            if read_json_object(folder / FILE).child("target").get("name", str) == target:
                found.append(folder)
    return found


def logs_digest(target: str, places: Iterable[Path]) -> str:
    """Return one sha256 of a target's logs: what is tuned changes the name of what is compiled."""
    digest = hashlib.sha256()
    for folder in logs_about(target, places):
        for data in read_files(folder).values():
            digest.update(data)
    return digest.hexdigest()


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a log that are there; the provenance first, as it speaks of the others.

    Raises:
        ArtifactError: One cannot be read, or is too large.
    """
    there = [name for name in FILES if (folder / name).exists()]
    return {name: read_bounded(folder / name, MOST_BYTES) for name in there}


def log_name(target: str, cpu: str | None, is_emulated: bool) -> str:
    """Return the name of a target's folder.

    Args:
        target: The target's name.
        cpu: LLVM's name of the CPU, where the target is whichever machine it is compiled on.
        is_emulated: Whether the times are an emulator's: they are kept apart, and never applied.
    """
    parts = [target, *([cpu] if cpu else []), *(["emulated"] if is_emulated else [])]
    return re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(parts))
