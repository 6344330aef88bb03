"""A snapshot of the tuning logs that a job is planned with.

A user's folder of logs differs from machine to machine, and changes while a tuner runs. So the logs
are copied when a matrix is planned, and put into the store: workers apply the copies alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvlm.compile.tuning_log import logs_for_target, read_log_files
from mvlm.runtime.artifact.manifest import FileEntry


def snapshot_logs(target: str, places: Iterable[Path], folder: Path) -> tuple[FileEntry, ...]:
    """Copy the logs of a target's name.

    Args:
        target: The name.
        places: Folders that logs are looked for in.
        folder: Where copies go; logs of equal contents are copied once.

    Returns:
        The copies, by their paths in `folder`: a digest, the log's name, the file's. The log that
        is asked first comes first.
    """
    entries = []
    for log in logs_for_target(target, places):
        files = {
            name: (data, hashlib.sha256(data).hexdigest())
            for name, data in read_log_files(log).items()
        }
        whole = hashlib.sha256("".join(digest for _, digest in files.values()).encode()).hexdigest()
        place = Path(whole[:16], log.resolve().name)
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name, (data, digest) in files.items():
            (folder / place / name).write_bytes(data)
            entries.append(FileEntry((place / name).as_posix(), len(data), digest))
    return tuple(entries)


def snapshot_folders(entries: Sequence[FileEntry], folder: Path) -> tuple[Path, ...]:
    """Return the folders of the logs in a snapshot, in the order in which they are asked.

    Args:
        entries: The files that :func:`snapshot_logs` returned.
        folder: Where those files lie now.
    """
    return tuple(dict.fromkeys(folder / Path(entry.path).parent for entry in entries))
