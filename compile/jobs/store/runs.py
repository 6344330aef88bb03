"""The runs of a store: what is to be done, what became of it, and what was printed meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mvlm.compile.jobs.states import (
    KEY,
    MAX_RUN_BYTES,
    MAX_STATE_BYTES,
    RUN,
    MatrixRun,
    StepState,
    parse_run,
    parse_state,
)
from mvlm.compile.jobs.store.files import Files
from mvlm.runtime.errors import UsageError

MAX_LOG_BYTES = 4 << 20
_CANCEL, _HEARTBEAT = "cancel", "heartbeat"
_MOST_DIGITS = 40
_MOST_ATTEMPTS = 100


def new_run_id() -> str:
    """Return a name for a run; names sort by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


class Runs:
    """The documents and logs of runs.

    Args:
        files: The store's.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def find(self, name: str | None) -> MatrixRun:
        """Return a run by its name or the beginning of it, or the latest if None.

        Raises:
            UsageError: There is none, or several are meant.
            ArtifactError: Its document breaks the format.
        """
        known = sorted(name for name in self._files.names("runs") if RUN.fullmatch(name))
        meant = [each for each in known if each.startswith(name)] if name else known[-1:]
        if len(meant) != 1:
            raise UsageError(
                f"no run of the store {self._files.url} is meant",
                expected=f"one of {', '.join(known[-5:])}" if known else "a run",
                found=name or "none yet",
                fix="`mvlm jobs run MATRIX --store URL` starts one.",
            )
        data = self._files.read(f"runs/{meant[0]}/run.json", MAX_RUN_BYTES)
        return parse_run(data or b"", f"{self._files.url}/runs/{meant[0]}/run.json")

    def write(self, run: MatrixRun) -> None:
        """Write a run's document."""
        self._files.write(f"runs/{run.id}/run.json", run.to_bytes())

    def renew(self, run_id: str) -> None:
        """Write the time of a run's last heartbeat: small, for it is written every few seconds."""
        self._files.write(f"runs/{run_id}/{_HEARTBEAT}", str(time.time()).encode())

    def last_renewal(self, run_id: str) -> float | None:
        """Return the time of a run's last heartbeat, by its own clock."""
        data = self._files.read(f"runs/{run_id}/{_HEARTBEAT}", _MOST_DIGITS)
        try:
            return float(data) if data else None
        except ValueError:
            return None

    def state(self, run: MatrixRun, key: str) -> StepState:
        """Return a step's state; queued if nothing was written of it yet."""
        name = f"runs/{run.id}/jobs/{key}.json"
        data = self._files.read(name, MAX_STATE_BYTES)
        return StepState() if data is None else parse_state(data, f"{self._files.url}/{name}")

    def write_state(self, run_id: str, key: str, state: StepState) -> None:
        """Write a step's state."""
        self._files.write(f"runs/{run_id}/jobs/{key}.json", state.to_bytes())

    def cancel(self, run: MatrixRun) -> None:
        """Ask a run to end; whoever runs it looks every second or so."""
        self._files.write(f"runs/{run.id}/{_CANCEL}", b"")

    def is_cancelled(self, run_id: str) -> bool:
        """Whether a run was asked to end."""
        return self._files.size(f"runs/{run_id}/{_CANCEL}") is not None

    def log(self, run_id: str, key: str) -> str:
        """Return what a step's attempts printed, one after the other."""
        parts = []
        for attempt in range(1, _MOST_ATTEMPTS):
            data = self._files.read(log_name(run_id, key, attempt), MAX_LOG_BYTES)
            if data is None:
                break
            parts.append(data[:MAX_LOG_BYTES].decode(errors="replace"))
        return "".join(parts)

    def write_report(self, run_id: str, name: str, data: bytes) -> str:
        """Write a report and return its URL."""
        self._files.write(f"runs/{run_id}/{name}", data)
        return f"{self._files.url}/runs/{run_id}/{name}"


def log_name(run_id: str, key: str, attempt: int) -> str:
    """Return the name of the log of one attempt.

    Raises:
        ValueError: A part of it is no run's name, or no key.
    """
    if not RUN.fullmatch(run_id) or not KEY.fullmatch(key):
        raise ValueError(f"{run_id}/{key}")
    return f"runs/{run_id}/logs/{key}.{attempt}.log"


def log_path(files: Files, run_id: str, key: str, attempt: int) -> Path | None:
    """Return the place of a log, where the store is a folder that can be written to directly."""
    if files.folder is None:
        return None
    path = files.folder / log_name(run_id, key, attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
