"""The models of a server: loaded from its start, or on demand as memory and `most` allow.

On demand, a model is verified and loaded for its first request, in a thread, while others are
answered. The one that was used longest ago and is used by no request gives way. A request that uses
a model holds it until its response has ended, so that none goes while it answers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from mvlm.runtime.engine.load import EngineLoad
from mvlm.runtime.errors import LowMemoryError, MvlmError
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.models.served_model import ServedModel

ModelState = Literal["loaded", "loading", "unloaded", "failed"]
Load = Callable[[], ServedModel]
# A model that could not be loaded is not tried again at once: verifying it takes long.
_RETRY_SECONDS = 10.0
_log = logging.getLogger(__name__)


class _NobodyWaitsError(Exception):
    """Whoever asked for a model has gone before there was room for it."""


@dataclass(eq=False)
class _Slot:
    """A model's place.

    Attributes:
        name: Its name.
        load: Loads it, in a thread.
        created: When the server began, or the model was loaded before; in seconds since 1970.
        served: It, if it is loaded.
        users: Requests that use it, or wait for it.
        last_used: By ``time.monotonic``.
        loading: Loads it at the moment.
        failed_at: When loading it failed last, by ``time.monotonic``.
    """

    name: str
    load: Load | None
    served: ServedModel | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    users: int = 0
    last_used: float = 0.0
    loading: asyncio.Task[ServedModel] | None = None
    failed_at: float | None = None

    @property
    def state(self) -> ModelState:
        if self.served is not None:
            return "failed" if self.served.engine.has_ended else "loaded"
        return "loading" if self.loading is not None else "unloaded"


class ModelPool:
    """The models by their names; an asynchronous context in which the engines run.

    Args:
        loaded: Models that stay loaded.
        on_demand: By their names, how others are loaded.
        most: How many may be loaded at once; as many as there is memory for if None.
        patience: Seconds that a request waits for its model.
    """

    def __init__(
        self,
        loaded: Iterable[ServedModel] = (),
        on_demand: Mapping[str, Load] | None = None,
        most: int | None = None,
        patience: float = 120.0,
    ) -> None:
        slots = [_Slot(each.name, None, each, each.created) for each in loaded]
        slots += [_Slot(name, load) for name, load in (on_demand or {}).items()]
        self._slots = {slot.name: slot for slot in slots}
        self._most, self._patience = most, patience
        # One model is loaded at a time, and told when one is released.
        self._turn, self._released = asyncio.Lock(), asyncio.Event()

    async def __aenter__(self) -> ModelPool:
        for slot in self._loaded():
            assert slot.served is not None
            await slot.served.engine.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [slot.loading for slot in self._slots.values() if slot.loading is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot in self._loaded():
            await self._close(slot)

    @property
    def names(self) -> list[str]:
        """All models' names."""
        return list(self._slots)

    def states(self) -> dict[str, ModelState]:
        """Return how each model is."""
        return {name: slot.state for name, slot in self._slots.items()}

    def loads(self) -> dict[str, EngineLoad | None]:
        """Return what the engines have to do; None of a model that is not loaded."""
        return {
            name: None if slot.served is None else slot.served.engine.load
            for name, slot in self._slots.items()
        }

    def describe(self, name: str) -> tuple[int, int | None, bool]:
        """Return when a model was created, its context if it is loaded, and whether it is."""
        slot = self._slots[name]
        context = None if slot.served is None else slot.served.model.settings.context
        return slot.created, context, slot.served is not None

    async def hold(self, name: str, until: ExitStack) -> ServedModel:
        """Return a model, loaded, which stays until a stack is closed.

        Raises:
            ApiError: It cannot be loaded, or not soon.
        """
        slot = self._slots[name]
        slot.users += 1
        until.callback(self._release, slot)
        if slot.served is not None:
            return slot.served
        if slot.failed_at is not None and time.monotonic() - slot.failed_at < _RETRY_SECONDS:
            raise _not_loaded(name)
        if slot.loading is None:
            slot.loading = asyncio.create_task(self._load(slot))
            slot.loading.add_done_callback(_retrieve)
        try:
            return await asyncio.wait_for(asyncio.shield(slot.loading), self._patience)
        except asyncio.TimeoutError:
            message = f"model {name!r} was not loaded within {self._patience:g} s"
            raise ApiError(503, message, kind="server_error", code="model_loading") from None

    def _release(self, slot: _Slot) -> None:
        slot.users -= 1
        slot.last_used = time.monotonic()
        self._released.set()

    async def _load(self, slot: _Slot) -> ServedModel:
        """Load a model when there is room.

        Raises:
            ApiError: It cannot be loaded.
        """
        begun = time.monotonic()
        try:
            async with self._turn:
                await self._make_room(slot)
                served = await self._loaded_within_memory(slot)
                await served.engine.__aenter__()
        except _NobodyWaitsError:
            raise _not_loaded(slot.name) from None
        except Exception as error:
            slot.failed_at = time.monotonic()
            trace = None if isinstance(error, MvlmError) else error
            _log.error("model %s could not be loaded: %s", slot.name, error, exc_info=trace)
            raise _not_loaded(slot.name) from None
        finally:
            slot.loading = None
        slot.served, slot.failed_at = served, None
        _log.info("model %s was loaded in %.1f s", slot.name, time.monotonic() - begun)
        return served

    async def _make_room(self, slot: _Slot) -> None:
        """Unload models until one more may be loaded; those in use are waited for."""
        while self._most is not None and len(self._loaded()) >= self._most:
            if slot.users == 0:
                raise _NobodyWaitsError
            self._released.clear()
            if not await self._unload_idle():
                await self._released.wait()

    async def _loaded_within_memory(self, slot: _Slot) -> ServedModel:
        """Load a model; for lack of memory others give way."""
        assert slot.load is not None
        while True:
            try:
                return await asyncio.to_thread(slot.load)
            except LowMemoryError:
                if not await self._unload_idle():
                    raise

    async def _unload_idle(self) -> bool:
        """Unload the model that was used longest ago, if one is idle; returns whether one was."""
        idle = [each for each in self._loaded() if each.users == 0 and each.load is not None]
        if not idle:
            return False
        oldest = min(idle, key=lambda each: each.last_used)
        await self._close(oldest)
        _log.info("model %s was unloaded", oldest.name)
        return True

    async def _close(self, slot: _Slot) -> None:
        """Unload a model, and free its memory."""
        served, slot.served = slot.served, None
        assert served is not None
        await served.engine.__aexit__(None, None, None)
        del served
        # The engine and its thread refer to each other.
        await asyncio.to_thread(gc.collect)

    def _loaded(self) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.served is not None]


def _retrieve(task: asyncio.Task[ServedModel]) -> None:
    """Take a task's error, which nobody may wait for any more; it was logged."""
    if not task.cancelled():
        task.exception()


def _not_loaded(name: str) -> ApiError:
    return ApiError(
        503,
        f"model {name!r} could not be loaded; the server's log says why",
        kind="server_error",
        code="model_not_loaded",
    )
