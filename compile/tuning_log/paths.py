"""The folders of tuning logs, the user's own and those that mvlm ships, and a log's files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mvlm.runtime.artifact.json_object import read_bounded, read_json_object
from mvlm.runtime.errors import ArtifactError, UsageError
from mvlm.runtime.folders import home_folder, package_folder

LOGS_VARIABLE = "MVLM_TUNING_LOGS"

# The first two are MetaSchedule's.
WORKLOADS_FILE, RECORDS_FILE = "database_workload.json", "database_tuning_record.json"
PROVENANCE_FILE = "provenance.json"
LOG_FILES = (PROVENANCE_FILE, WORKLOADS_FILE, RECORDS_FILE)
QUARANTINE = "quarantine"
MAX_BYTES = 1 << 30  # of each file


def user_logs_folder() -> Path:
    """Return ``$MVLM_TUNING_LOGS``, else ``$XDG_DATA_HOME/mvlm/tuning_logs``, else ``~/.local``'s.

    Not the cache: a log takes hours of a device's time.

    Raises:
        UsageError: None of these is set, and there is no home folder.
    """
    chosen = os.environ.get(LOGS_VARIABLE)
    if chosen:
        return Path(chosen)
    base, home = os.environ.get("XDG_DATA_HOME"), home_folder()
    if base:
        return Path(base) / "mvlm" / "tuning_logs"
    if home is None:
        raise UsageError(
            "no folder is known for tuning logs",
            expected=f"{LOGS_VARIABLE}, XDG_DATA_HOME or a home folder",
            found="none of them",
            fix="Name a folder with --logs.",
        )
    return home / ".local" / "share" / "mvlm" / "tuning_logs"


def shipped_logs_folder() -> Path | None:
    """Return the folder of the logs that mvlm ships, or None if this installation has none."""
    try:
        return package_folder("mvlm.tuning_logs")
    except ModuleNotFoundError:
        return None


def log_folders(named: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """Return the folders of logs, in order of precedence.

    Args:
        named: Folders that the user named; the user's own and those that mvlm ships if None.

    Raises:
        UsageError: A named folder has no log.
    """
    if named is not None:
        for folder in named:
            if not find_logs([folder]):
                raise UsageError(
                    f"there is no tuning log in {folder}",
                    expected=f"a folder with {PROVENANCE_FILE}, or one of such folders",
                    found="neither" if folder.is_dir() else "no such folder",
                    fix="`mvlm logs list` lists the logs.",
                )
        return tuple(named)
    folders = []
    # Without a home folder, or with one that is another user's, this user has no logs.
    with suppress(UsageError, PermissionError):
        find_logs([user_logs_folder()])
        folders.append(user_logs_folder())
    shipped = shipped_logs_folder()
    return (*folders, *([shipped] if shipped else []))


def find_logs(folders: Iterable[Path]) -> list[Path]:
    """Return the logs in some folders; a folder may be a log itself."""
    found: list[Path] = []
    for folder in folders:
        if (folder / PROVENANCE_FILE).is_file():
            found.append(folder)
        elif folder.is_dir():
            found += sorted(path.parent for path in folder.glob(f"*/{PROVENANCE_FILE}"))
    return found


def logs_for_target(target: str, folders: Iterable[Path]) -> list[Path]:
    """Return the logs of a target's name, whether they will be applied or not.

    It takes milliseconds, without tvm.
    """
    found = []
    for folder in find_logs(folders):
        with suppress(ArtifactError):  # it will not be applied
            if (
                read_json_object(folder / PROVENANCE_FILE).child("target").get("name", str)
                == target
            ):
                found.append(folder)
    return found


def logs_digest(target: str, folders: Iterable[Path]) -> str:
    """Return one sha256 of a target's logs, which is part of the key of what is compiled."""
    digest = hashlib.sha256()
    for folder in logs_for_target(target, folders):
        for data in read_log_files(folder).values():
            digest.update(data)
    return digest.hexdigest()


def read_log_files(folder: Path) -> dict[str, bytes]:
    """Return a log's existing files by name; the provenance, which refers to the others, first.

    Raises:
        ArtifactError: One cannot be read, or is too large.
    """
    there = [name for name in LOG_FILES if (folder / name).exists()]
    return {name: read_bounded(folder / name, MAX_BYTES) for name in there}


def log_name(target: str, cpu: str | None, is_emulated: bool) -> str:
    """Return the name of a target's folder.

    Args:
        target: The target's name.
        cpu: LLVM's name of the CPU, for the target ``host``, which is a different CPU elsewhere.
        is_emulated: Whether the times are an emulator's: such a log is never applied.
    """
    parts = [target, *([cpu] if cpu else []), *(["emulated"] if is_emulated else [])]
    return re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(parts))
