"""Tuning logs on their way with a job.

What lies in a user's folder of logs differs from machine to machine, and changes while somebody
tunes. So the logs that a matrix is planned with are copied then, and put into the store: a worker
applies those, and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvlm.compile.tuning.log import logs_for_target, read_log_files
from mvlm.runtime.artifact.manifest import FileEntry


def carry_logs(target: str, places: Iterable[Path], folder: Path) -> tuple[FileEntry, ...]:
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


def places_of(entries: Sequence[FileEntry], folder: Path) -> tuple[Path, ...]:
    """Return the places that logs are to be looked for in, the first one asked first.

    Args:
        entries: What :func:`carry_logs` returned.
        folder: Where those files lie now.
    """
    return tuple(dict.fromkeys(folder / Path(entry.path).parent for entry in entries))
