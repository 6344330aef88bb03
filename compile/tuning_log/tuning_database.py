"""One target's log on disk: read whole, written a line at a time.

A failed write loses no earlier line. Damaged lines, such as one that a crash has truncated, are
quarantined when the log is next opened for writing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mvlm.compile.tuning_log.database import Database, TuningRecord, check_workload
from mvlm.compile.tuning_log.paths import (
    LOG_FILES,
    MAX_BYTES,
    PROVENANCE_FILE,
    QUARANTINE,
    RECORDS_FILE,
    WORKLOADS_FILE,
    read_log_files,
)
from mvlm.compile.tuning_log.provenance import (
    LogKey,
    Provenance,
    TaskResult,
    TuningRun,
    read_provenance,
)
from mvlm.runtime.artifact.json_object import read_bounded
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import ArtifactError, UsageError

_LOCK = ".lock"


@dataclass(frozen=True)
class Log:
    """A log as it was read.

    Attributes:
        folder: The log's folder.
        provenance: Its provenance.
        contents: Its undamaged lines.
        damaged: What is wrong with the damaged lines, by file and line, counted from one.
    """

    folder: Path
    provenance: Provenance
    contents: Database
    damaged: Mapping[str, str]


def read_log(folder: Path) -> Log:
    """Read a log; damaged lines are left out and listed.

    Raises:
        ArtifactError: The provenance is absent or damaged, or a file cannot be read.
    """
    provenance = read_provenance(folder)
    damaged: dict[str, str] = {}
    workloads, records = _lines(folder / WORKLOADS_FILE), _lines(folder / RECORDS_FILE)
    whole, kept, measured = set(), set(), []
    for index, line in enumerate(workloads):
        with _collect_damage(damaged, f"{WORKLOADS_FILE}, line {index + 1}"):
            check_workload(line)
            whole.add(index)
    for index, line in enumerate(records):
        measured.append(TuningRecord(-1, []))
        with _collect_damage(damaged, f"{RECORDS_FILE}, line {index + 1}"):
            measured[-1] = TuningRecord.from_line(line, len(workloads))
            kept.add(index)
    results = {
        key: result
        for key, result in provenance.results.items()
        if result.workload < len(workloads) and (result.record or 0) < len(records)
    }
    everything = Database(tuple(workloads), tuple(measured), results)
    contents = everything.select(whole.__contains__, kept.__contains__)
    return Log(folder, provenance, contents, damaged)


class TuningDatabase:
    """A log that is open for writing, locked against other processes.

    Args:
        folder: The log's folder; created if it does not exist.

    Raises:
        UsageError: Another process writes it.
        ArtifactError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.contents = folder, Database()
        self.provenance: Provenance | None = None
        self._files: dict[str, IO[bytes]] = {}
        with _explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(
                f"another process writes {folder}", fix="Wait for it, or name another --logs."
            ) from None

    def resume(self, log: Log) -> Path | None:
        """Append to an existing log; return where it was copied to if it has damaged lines."""
        self.contents = log.contents
        self.provenance = dataclasses.replace(log.provenance, results=log.contents.results)
        if not log.damaged:
            return None
        with _explain_os_errors(self.folder):
            aside = self._new_quarantine_folder()
            for name, data in read_log_files(self.folder).items():
                (aside / name).write_bytes(data)
            text = "".join(f"{where}: {what}\n" for where, what in log.damaged.items())
            (aside / "damage.txt").write_text(text, encoding="utf-8")
        self.rewrite(log.provenance, log.contents)
        return aside

    def quarantine(self) -> Path | None:
        """Move the log's files into a quarantine folder; return it, or None without files."""
        names = [name for name in LOG_FILES if (self.folder / name).exists()]
        if not names:
            return None
        with _explain_os_errors(self.folder):
            aside = self._new_quarantine_folder()
            for name in names:
                (self.folder / name).rename(aside / name)
        return aside

    def rewrite(self, provenance: Provenance, contents: Database) -> None:
        """Replace all files, each atomically, the provenance last."""
        with _explain_os_errors(self.folder):
            _write_lines(self.folder / WORKLOADS_FILE, list(contents.workloads))
            _write_lines(self.folder / RECORDS_FILE, [record.line for record in contents.records])
            whole = dataclasses.replace(provenance, results=contents.results)
            whole.write(self.folder)
        self.contents, self.provenance = contents, whole

    def commit_workload(self, line: str) -> int:
        """Append a workload unless the log has it; return its line."""
        check_workload(line)
        if line in self.contents.workloads:
            return self.contents.workloads.index(line)
        self._append(WORKLOADS_FILE, line)
        workloads = (*self.contents.workloads, line)
        self.contents = dataclasses.replace(self.contents, workloads=workloads)
        return len(workloads) - 1

    def commit_tuning_record(self, record: TuningRecord) -> int:
        """Append a record; return its line."""
        TuningRecord.from_line(record.line, len(self.contents.workloads))
        self._append(RECORDS_FILE, record.line)
        records = (*self.contents.records, record)
        self.contents = dataclasses.replace(self.contents, records=records)
        return len(records) - 1

    def commit_result(self, key: str, result: TaskResult) -> None:
        """Replace the result of the task with a key."""
        assert self.provenance is not None
        results = {**self.contents.results, key: result}
        self.write_provenance(dataclasses.replace(self.provenance, results=results))

    def commit_run(self, run: TuningRun) -> None:
        """Append a run."""
        assert self.provenance is not None
        runs = (*self.provenance.runs, run)
        self.write_provenance(dataclasses.replace(self.provenance, runs=runs))

    def write_provenance(self, provenance: Provenance) -> None:
        """Replace the provenance and, with it, the task results."""
        with _explain_os_errors(self.folder):
            provenance.write(self.folder)
        self.contents = dataclasses.replace(self.contents, results=provenance.results)
        self.provenance = provenance

    def close(self) -> None:
        """Close the files and let others write."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._lock.close()

    def __enter__(self) -> TuningDatabase:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _append(self, name: str, line: str) -> None:
        path = self.folder / name
        with _explain_os_errors(self.folder):
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

    def _new_quarantine_folder(self) -> Path:
        number = 1
        while (self.folder / QUARANTINE / str(number)).exists():
            number += 1
        folder = self.folder / QUARANTINE / str(number)
        folder.mkdir(parents=True)
        return folder


def open_database(
    folder: Path, key: LogKey, device: Mapping[str, Any], note: Callable[[str], None]
) -> TuningDatabase:
    """Open a target's log to append to; quarantine files that do not match the target.

    Args:
        folder: The log's folder; created if it does not exist.
        key: The target, options, threads and versions of the run.
        device: The description of the run's device, for a new log's provenance.
        note: Called with messages for the user.

    Raises:
        UsageError: Another process writes the log.
        ArtifactError: The folder cannot be written.
    """
    database = TuningDatabase(folder)
    try:
        _resume_or_quarantine(database, key, note)
        if database.provenance is None:
            provenance = Provenance(key.target, key.options, key.versions, device)
            database.write_provenance(provenance)
    except BaseException:
        database.close()
        raise
    return database


def _resume_or_quarantine(
    database: TuningDatabase, key: LogKey, note: Callable[[str], None]
) -> None:
    if not (database.folder / PROVENANCE_FILE).exists():
        quarantined = database.quarantine()  # a database without provenance
        if quarantined is not None:
            note(f"a log without {PROVENANCE_FILE} is quarantined in {quarantined}")
        return
    try:
        log = read_log(database.folder)
        reason = key.kernel_mismatch(log.provenance)
    except ArtifactError as error:
        log, reason = None, str(error)
    if log is None or reason is not None:
        note(f"the log {database.folder.name} is quarantined in {database.quarantine()}: {reason}")
        return
    copy = database.resume(log)
    if copy is not None:
        note(f"{len(log.damaged)} damaged lines are removed; {copy} has the log before")


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    data = read_bounded(path, MAX_BYTES)
    return data.decode("utf-8", errors="replace").splitlines()


@contextmanager
def _collect_damage(damaged: dict[str, str], where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        damaged[where] = str(error)[:120]


@contextmanager
def _explain_os_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError about a log into an ArtifactError with a fix."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot write the log {folder}",
            found=error.strerror or str(error),
            fix="No earlier line is lost. Free some space, or name another folder with --logs.",
        ) from error
