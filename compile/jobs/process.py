"""Identifies processes, and says whether another one is still alive."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mvlm.runtime.artifact.json_object import JsonObject

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_STARTED = 19  # of the fields behind the program's name in /proc/PID/stat


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    Attributes:
        host: The machine's name, for people.
        pid_namespace: Where its number is unique: this boot of the machine, and the container.
        pid: Its number.
        started: When it started, in the system's ticks: numbers are used again.
    """

    host: str
    pid_namespace: str
    pid: int
    started: int

    @property
    def is_gone(self) -> bool:
        """Whether it certainly is not alive any more; of another machine's nobody knows."""
        return (
            self.pid_namespace == this_process().pid_namespace
            and _started(self.pid) != self.started
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


def read_process(document: JsonObject) -> Process:
    """Read a process of a document.

    Raises:
        ArtifactError: A key is missing or of another type.
    """
    texts = {key: document.get(key, str)[:200] for key in ("host", "pid_namespace")}
    return Process(**texts, pid=document.get("pid", int), started=document.get("started", int))


def this_process() -> Process:
    """Return the process that asks."""
    pid = os.getpid()
    return Process(socket.gethostname(), _pid_namespace(), pid, _started(pid) or 0)


@cache
def _pid_namespace() -> str:
    try:
        return f"{_BOOT.read_text().strip()}/{_NAMESPACE.readlink()}"
    except OSError:  # then nobody takes us for gone
        return f"unknown/{socket.gethostname()}/{os.urandom(8).hex()}"


def _started(pid: int) -> int | None:
    """Return when a process started; None if there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[_STARTED])
