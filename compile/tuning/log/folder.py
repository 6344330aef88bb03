"""One target's log on the disk: read as it is, and written a line at a time.

Whatever happens while a line is written, the lines before it stay. Lines that are no lines of a
database, the cut one after a crash for instance, are set aside when the log is written next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mvlm.compile.tuning.log.files import FILES, MOST_BYTES, RECORDS, SET_ASIDE, WORKLOADS
from mvlm.compile.tuning.log.lines import check_record, check_workload
from mvlm.compile.tuning.log.places import read_files
from mvlm.compile.tuning.log.provenance import Provenance, read_provenance
from mvlm.compile.tuning.log.tables import Measured, Tables
from mvlm.runtime.artifact.json_object import read_bounded
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import ArtifactError, UsageError

_LOCK = ".lock"


@dataclass(frozen=True)
class Log:
    """What is in a log.

    Attributes:
        folder: Where it lies.
        provenance: Where it comes from.
        tables: Its lines, but for the damaged ones.
        damaged: What is wrong with those, by file and line, counted from one.
    """

    folder: Path
    provenance: Provenance
    tables: Tables
    damaged: Mapping[str, str]


def read_log(folder: Path) -> Log:
    """Read a log; damaged lines are named and left out.

    Raises:
        ArtifactError: The provenance is absent or damaged, or a file cannot be read.
    """
    provenance = read_provenance(folder)
    damaged: dict[str, str] = {}
    workloads, records = _lines(folder / WORKLOADS), _lines(folder / RECORDS)
    whole, kept, measured = set(), set(), []
    for place, line in enumerate(workloads):
        with _damage(damaged, f"{WORKLOADS}, line {place + 1}"):
            check_workload(line)
            whole.add(place)
    for place, line in enumerate(records):
        measured.append(Measured(-1, []))
        with _damage(damaged, f"{RECORDS}, line {place + 1}"):
            measured[-1] = Measured(*check_record(line, len(workloads)))
            kept.add(place)
    outcomes = {
        key: outcome
        for key, outcome in provenance.outcomes.items()
        if outcome.workload < len(workloads) and (outcome.record or 0) < len(records)
    }
    everything = Tables(tuple(workloads), tuple(measured), outcomes)
    tables = everything.choose(whole.__contains__, kept.__contains__)
    return Log(folder, provenance, tables, damaged)


class WritableLog:
    """A log that is being written, by nobody else meanwhile.

    Args:
        folder: Its folder; made if it is not there.

    Raises:
        UsageError: Another process writes it.
        ArtifactError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables = folder, Tables()
        self.provenance: Provenance | None = None
        self._files: dict[str, IO[bytes]] = {}
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(
                f"another process writes {folder}", fix="Wait for it, or name another --logs."
            ) from None

    def take_over(self, log: Log) -> Path | None:
        """Go on with what is there; return where it was copied to if some of it is damaged."""
        self.tables = log.tables
        self.provenance = dataclasses.replace(log.provenance, outcomes=log.tables.outcomes)
        if not log.damaged:
            return None
        with _explained(self.folder):
            aside = self._new_folder()
            for name, data in read_files(self.folder).items():
                (aside / name).write_bytes(data)
            text = "".join(f"{where}: {what}\n" for where, what in log.damaged.items())
            (aside / "damage.txt").write_text(text, encoding="utf-8")
        self.replace(log.provenance, log.tables)
        return aside

    def set_aside(self) -> Path | None:
        """Move what is there into a folder of its own; return it, or None if there was nothing."""
        names = [name for name in FILES if (self.folder / name).exists()]
        if not names:
            return None
        with _explained(self.folder):
            aside = self._new_folder()
            for name in names:
                (self.folder / name).rename(aside / name)
        return aside

    def replace(self, provenance: Provenance, tables: Tables) -> None:
        """Write everything anew, each file whole or not at all, the provenance last."""
        with _explained(self.folder):
            _write_lines(self.folder / WORKLOADS, list(tables.workloads))
            _write_lines(self.folder / RECORDS, [record.line for record in tables.records])
            whole = dataclasses.replace(provenance, outcomes=tables.outcomes)
            whole.write(self.folder)
        self.tables, self.provenance = tables, whole

    def add_workload(self, line: str) -> int:
        """Append a workload that may be there already; return its line."""
        check_workload(line)
        if line in self.tables.workloads:
            return self.tables.workloads.index(line)
        self._append(WORKLOADS, line)
        workloads = (*self.tables.workloads, line)
        self.tables = dataclasses.replace(self.tables, workloads=workloads)
        return len(workloads) - 1

    def add_record(self, record: Measured) -> int:
        """Append a record; return its line."""
        check_record(record.line, len(self.tables.workloads))
        self._append(RECORDS, record.line)
        records = (*self.tables.records, record)
        self.tables = dataclasses.replace(self.tables, records=records)
        return len(records) - 1

    def write_provenance(self, provenance: Provenance) -> None:
        """Replace the provenance; its outcomes become the log's."""
        with _explained(self.folder):
            provenance.write(self.folder)
        self.tables = dataclasses.replace(self.tables, outcomes=provenance.outcomes)
        self.provenance = provenance

    def close(self) -> None:
        """Close the files and let others write."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._lock.close()

    def __enter__(self) -> WritableLog:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _append(self, name: str, line: str) -> None:
        path = self.folder / name
        with _explained(self.folder):
            if name not in self._files:
                # Unbuffered: what cannot be written is not tried again when the file is closed.
                self._files[name] = path.open("ab", buffering=0)
            file, size = self._files[name], path.stat().st_size
            try:
                data = (line + "\n").encode()
                if file.write(data) != len(data):
                    raise OSError(None, "no space left on the disk")
                os.fsync(file.fileno())
            except OSError:  # not half a line: the next one would be joined to it
                with contextlib.suppress(OSError):
                    os.truncate(path, size)
                raise

    def _new_folder(self) -> Path:
        number = 1
        while (self.folder / SET_ASIDE / str(number)).exists():
            number += 1
        place = self.folder / SET_ASIDE / str(number)
        place.mkdir(parents=True)
        return place


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    data = read_bounded(path, MOST_BYTES)
    return data.decode("utf-8", errors="replace").splitlines()


@contextmanager
def _damage(damaged: dict[str, str], where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        damaged[where] = str(error)[:120]


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn the system's errors about a log into ones that say what to do."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot write the log {folder}",
            found=error.strerror or str(error),
            fix="What was in it still is. Free some space, or name another folder with --logs.",
        ) from error
