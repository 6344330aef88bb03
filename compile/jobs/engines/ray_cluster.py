"""Steps as tasks of a Ray cluster, each in a worker's process on whichever node has room.

Ray places tasks and tells which died; what is tried again, and how often, is the coordinator's
decision here as with every engine, so a task is never retried by Ray itself. Nothing but text
travels through it: results go to the store.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mvlm.compile.jobs.messages import (
    StepOutcome,
    StepRequest,
    parse_step_outcome,
    parse_step_request,
)
from mvlm.runtime.errors import MvlmError, UsageError
from mvlm.runtime.measurement.server import Address

# Ray reports usage unless it is told not to, before it is imported.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
_FIX = "`ray status` says whether it runs; `ray start --head` starts one."
_REACH_SECONDS = 5.0
_LOCAL = "a Ray of this machine"


class EngineError(MvlmError):
    """A cluster cannot be reached, or does not answer."""


@dataclass(frozen=True)
class _Running:
    request: StepRequest
    reference: Any
    memory: int


def open_ray(address: str | None, workers: int | None, limit: int | None) -> RayEngine:
    """Connect to a cluster, or start one of this machine alone.

    Args:
        address: The cluster's head; None starts one, which ends with the engine.
        workers: Steps at once, at most; as many as the cluster has CPUs if None.
        limit: Bytes of memory that a cluster of our own lends to steps, or None.

    Raises:
        UsageError: Ray is not installed.
        EngineError: The cluster cannot be reached.
    """
    os.environ.update(_ENVIRONMENT)
    if address is not None:
        _require_listener(address)
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError(
            "--engine ray takes Ray", found="none", fix="`pip install 'mvlm[ray]'`"
        ) from None
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        options |= {"num_cpus": workers, "_memory": limit, "include_dashboard": False}
    else:
        options |= {"address": address}
    try:
        with _trusted_working_directory():
            ray.init(**options)
    except Exception as error:  # Ray raises what comes
        raise EngineError(
            f"the Ray cluster {address or 'of this machine'} cannot be used",
            found=f"{type(error).__name__}: {error}"[:300],
            fix=_FIX,
        ) from None
    return RayEngine(ray, address or _LOCAL, workers)


@contextmanager
def _trusted_working_directory() -> Iterator[None]:
    """Within the block, let the current folder be one that nobody but root writes to.

    Ray's workers search modules in the folder that its driver was connected from, which may be an
    untrusted checkpoint's.
    """
    try:
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # the current folder is gone, and no module is found there
        yield
        return
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _require_listener(address: str) -> None:
    """Check that something listens at an address: Ray itself waits for minutes.

    Raises:
        UsageError: Nobody can: there is no such port.
        EngineError: Nobody does.
    """
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():  # `auto`, for one
        return
    head = Address.parse(place, "--engine ray=ADDRESS")
    try:
        socket.create_connection((head.host, head.port), _REACH_SECONDS).close()
    except OSError as error:
        raise EngineError(
            f"the Ray cluster {address} cannot be reached", found=str(error), fix=_FIX
        ) from None


class RayEngine:
    """A Ray cluster to which this process is connected.

    Args:
        ray: The module.
        address: The cluster's, for people.
        workers: Steps at once, at most.
    """

    def __init__(self, ray: Any, address: str, workers: int | None) -> None:
        self._ray, self._address, self._workers = ray, address, workers
        self._task = ray.remote(max_retries=0)(_run_step)
        self._running: dict[str, _Running] = {}

    @property
    def description(self) -> str:
        """The engine, in words."""
        return f"Ray at {self._address}" if self._address != _LOCAL else _LOCAL

    def refusal(self, memory: int) -> str:
        """Say why no node can ever do a step of so many bytes; see :class:`Engine`."""
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        nodes = [node for node in alive if _resource(node, "CPU") >= 1]
        largest = max((_resource(node, "memory") for node in nodes), default=0.0)
        # While a node that died is being replaced there may be none.
        if not nodes or memory <= largest:
            return ""
        return (
            f"no node has the memory: expected about {memory / 1e9:.2f} GB, found "
            f"{largest / 1e9:.2f} GB at the most. Add a larger node to the cluster."
        )

    def has_room(self, memory: int) -> bool:
        """Whether a CPU is left. What does not fit into a node's memory waits within Ray."""
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        most = cpus if self._workers is None else min(cpus, self._workers)
        return len(self._running) < most

    def start(self, request: StepRequest, attempt: int, memory: int) -> None:
        """Start a step; see :class:`Engine`."""
        task = self._task.options(num_cpus=1, memory=memory, name=request.name)
        reference = task.remote(request.to_json(), attempt)
        self._running[request.key] = _Running(request, reference, memory)

    def wait(self, seconds: float) -> list[StepOutcome]:
        """Wait until a step ends; see :class:`Engine`."""
        references = {running.reference: running for running in self._running.values()}
        if not references:
            time.sleep(seconds)
            return []
        ended, _ = self._ray.wait(list(references), num_returns=1, timeout=seconds)
        outcomes = [self._outcome(references[reference]) for reference in ended]
        outcomes += [] if outcomes else self._unschedulable()
        for outcome in outcomes:
            del self._running[outcome.key]
        return outcomes

    def _unschedulable(self) -> list[StepOutcome]:
        """Give up what waits within Ray for a node that is gone: it would wait for ever."""
        stranded = [each for each in self._running.values() if self.refusal(each.memory)]
        for each in stranded:
            self._ray.cancel(each.reference, force=True)
        return [StepOutcome(each.request.key, self.refusal(each.memory), True) for each in stranded]

    def stop(self) -> None:
        """Kill what runs, and leave the cluster; one of our own ends with that."""
        for running in self._running.values():
            with suppress(Exception):  # it may have ended, or its node may be gone
                self._ray.cancel(running.reference, force=True)
        self._running.clear()
        self._ray.shutdown()

    def _outcome(self, running: _Running) -> StepOutcome:
        errors = self._ray.exceptions
        try:
            return parse_step_outcome(self._ray.get(running.reference))
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            out_of_memory = isinstance(error, errors.OutOfMemoryError)
            return _lost(running.request, error, out_of_memory=out_of_memory)
        except errors.RayError as error:
            return _lost(running.request, error)


def _lost(request: StepRequest, error: Exception, *, out_of_memory: bool = False) -> StepOutcome:
    """Return the outcome of a step whose worker or node is gone: another one may do it."""
    said = str(error).strip().partition("\n")[0]
    return StepOutcome(
        key=request.key,
        error=f"the worker is gone: {type(error).__name__}: {said}"[:1000],
        retryable=True,
        out_of_memory=out_of_memory,
    )


def _resource(node: Mapping[str, Any], name: str) -> float:
    return float(node["Resources"].get(name, 0))


def _run_step(text: str, attempt: int) -> str:
    """Do one step on a node, in a process of its own; runs as Ray's task."""
    from mvlm.compile.jobs.errors import StoreError
    from mvlm.compile.jobs.store import open_store
    from mvlm.compile.jobs.worker_process import WorkerProcess

    request = parse_step_request(text)
    try:
        worker = WorkerProcess(request, open_store(request.store).files, attempt)
    except StoreError as error:
        return StepOutcome(request.key, str(error), error.retryable).to_json()
    try:
        return worker.wait().to_json()
    finally:
        worker.kill()
