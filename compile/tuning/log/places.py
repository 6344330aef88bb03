"""Where logs are: those that come with mvlm, and the user's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mvlm.compile.tuning.log.files import FILE, RECORDS
from mvlm.runtime.package_folder import package_folder

VARIABLE = "MVLM_TUNING_LOGS"


def user_logs() -> Path:
    """Return ``$MVLM_TUNING_LOGS``, else ``$XDG_DATA_HOME/mvlm/tuning_logs``, else ``~/.local``'s.

    Not the cache: hours of a device's time are not made again easily.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "mvlm" / "tuning_logs"


def log_places() -> tuple[Path, ...]:
    """Return the folders that logs are looked for in, the user's first."""
    try:
        shipped: tuple[Path, ...] = (package_folder("mvlm.tuning_logs"),)
    except ModuleNotFoundError:
        shipped = ()
    return (user_logs(), *shipped)


def find_logs(places: Iterable[Path]) -> list[Path]:
    """Return the logs in some folders; a folder may be a log itself."""
    found: list[Path] = []
    for place in places:
        if (place / FILE).is_file():
            found.append(place)
        elif place.is_dir():
            found += sorted(path.parent for path in place.glob(f"*/{FILE}"))
    return found


def logs_digest(target: str, places: Iterable[Path]) -> str:
    """Return one sha256 of all logs of a target's name, whether they will be used or not.

    It costs milliseconds, without tvm: what is tuned changes the name of what is compiled.
    """
    digest = hashlib.sha256()
    for folder in find_logs(places):
        data = (folder / FILE).read_bytes()
        try:
            named = json.loads(data)["target"]["name"]
        except (ValueError, KeyError, TypeError):
            continue  # it will not be used
        if named == target:
            digest.update(data)
            digest.update((folder / RECORDS).read_bytes() if (folder / RECORDS).exists() else b"")
    return digest.hexdigest()


def log_name(target: str, cpu: str | None, is_emulated: bool) -> str:
    """Return the name of a target's folder.

    Args:
        target: The target's name.
        cpu: LLVM's name of the CPU, where the target is whichever machine it is compiled on.
        is_emulated: Whether the times are an emulator's: they are kept apart, and never applied.
    """
    parts = [target, *([cpu] if cpu else []), *(["emulated"] if is_emulated else [])]
    return re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(parts))
