"""From an engine's name on the command line to the engine."""

from __future__ import annotations

from mvlm.compile.jobs.engines.engine import Engine
from mvlm.compile.jobs.engines.local import LocalEngine
from mvlm.compile.jobs.store import Store
from mvlm.runtime.errors import UsageError
from mvlm.runtime.machine import read_machine


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
