"""Steps as processes of this machine, never more at once than fit into its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mvlm.compile.jobs.messages import StepOutcome, StepRequest
from mvlm.compile.jobs.store.files import Files
from mvlm.compile.jobs.worker_process import WorkerProcess, wait_any
from mvlm.runtime.machine import available_memory_bytes


@dataclass(frozen=True)
class _Running:
    process: WorkerProcess
    memory: int


class LocalEngine:
    """Runs each step in a process of this machine.

    Args:
        files: The store's.
        workers: Processes at once, at most.
        limit: Bytes of memory for all of them, at most; what is free if None.
        available: Says how many bytes are free, or None where nothing says so.
    """

    def __init__(
        self,
        files: Files,
        workers: int,
        limit: int | None = None,
        available: Callable[[], int | None] = available_memory_bytes,
    ) -> None:
        self._files, self._workers = files, workers
        self._limit, self._available = limit, available
        self._running: dict[str, _Running] = {}

    @property
    def description(self) -> str:
        """The engine, in words."""
        return f"local, {self._workers} worker{'' if self._workers == 1 else 's'}"

    def refusal(self, memory: int) -> str:
        """Say why a step of so many bytes cannot be done, though it has the machine for itself."""
        free = self._budget()
        if self._running or free is None or memory <= free:
            return ""
        return (
            f"there is too little memory: expected about {memory / 1e9:.2f} GB, found "
            f"{free / 1e9:.2f} GB. Close other programs, raise --memory, or take a larger machine."
        )

    def has_room(self, memory: int) -> bool:
        """Whether a worker is idle, and all that run would fit if each took what it may."""
        budget = self._budget()
        reserved = sum(running.memory for running in self._running.values())
        fits = budget is None or reserved + memory <= budget
        return len(self._running) < self._workers and fits

    def start(self, request: StepRequest, attempt: int, memory: int) -> None:
        """Start a step; see :class:`Engine`."""
        self._running[request.key] = _Running(WorkerProcess(request, self._files, attempt), memory)

    def wait(self, seconds: float) -> list[StepOutcome]:
        """Wait until a step ends; see :class:`Engine`."""
        outcomes = wait_any([running.process for running in self._running.values()], seconds)
        for outcome in outcomes:
            del self._running[outcome.key]
        return outcomes

    def stop(self) -> None:
        """Kill all workers."""
        for running in self._running.values():
            running.process.kill()
        self._running.clear()

    def _budget(self) -> int | None:
        """Return the bytes for all workers: what is free, and what they have taken already."""
        free = self._available()
        if free is None:
            return self._limit
        taken = sum(running.process.resident_bytes for running in self._running.values())
        return free + taken if self._limit is None else min(free + taken, self._limit)
