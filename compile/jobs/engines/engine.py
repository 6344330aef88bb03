"""What the coordinator asks of an engine, and how one is opened by its name."""

from __future__ import annotations

from typing import Protocol

from mvlm.compile.jobs.engines.local import LocalEngine
from mvlm.compile.jobs.messages import StepOutcome, StepRequest
from mvlm.compile.jobs.store import Store
from mvlm.runtime.errors import UsageError
from mvlm.runtime.machine import read_machine


class Engine(Protocol):
    """Runs steps, several at once. Results go to the store; an engine returns outcomes alone."""

    @property
    def description(self) -> str:
        """The engine, in words."""

    def refusal(self, memory: int) -> str:
        """Return why a step of so many bytes can never run here; empty if it can."""

    def has_room(self, memory: int) -> bool:
        """Whether a step of so many bytes can be started now."""

    def start(self, request: StepRequest, attempt: int, memory: int) -> None:
        """Start a step.

        Args:
            request: The step.
            attempt: The number of this attempt, from 1.
            memory: Bytes that are reserved for it.

        Raises:
            StoreError: It cannot be started.
        """

    def wait(self, seconds: float) -> list[StepOutcome]:
        """Wait until a step ends, or so many seconds; return what has ended."""

    def stop(self) -> None:
        """End what is running, and whatever the engine itself has started."""


def open_engine(name: str, store: Store, workers: int | None, limit: int | None) -> Engine:
    """Open an engine.

    Args:
        name: ``local``, ``ray`` for a Ray of this machine's own, or ``ray=ADDRESS``.
        store: Where results go.
        workers: Steps at once, at most; as many as there are cores if None.
        limit: Bytes of memory for them all, at most; what is free if None.

    Raises:
        UsageError: There is no such engine, or Ray is not installed.
        EngineError: The Ray cluster cannot be reached.
    """
    kind, _, address = name.partition("=")
    if store.files.url.startswith("memory:"):
        raise UsageError(
            "the store cannot be shared",
            expected="one that other processes reach",
            found=store.files.url,
            fix="`--store file:///srv/mvlm`",
        )
    if name == "local":
        return LocalEngine(store.files, workers or read_machine().cores, limit)
    if kind == "ray" and (address or name == "ray"):
        from mvlm.compile.jobs.engines.ray_cluster import open_ray

        return open_ray(address or None, workers, limit)
    raise UsageError("--engine", expected="local, ray or ray=ADDRESS", found=repr(name))
