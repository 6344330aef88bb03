"""What all requests share: the models, the limits, and how much there is to do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Literal

from mvlm.runtime.engine.load import EngineLoad
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.metrics import Metrics
from mvlm.runtime.server.remote_images import RemoteImages
from mvlm.runtime.server.request_context import REQUEST
from mvlm.runtime.server.served_model import ServedModel
from mvlm.runtime.server.settings import ServerSettings

ModelState = Literal["loaded", "failed"]


class Service:
    """The models that are served; an asynchronous context in which their engines run.

    Args:
        models: Loaded, their names unique.
        settings: The limits.
        images: Fetches images.

    Attributes:
        models: The same, by name.
        settings: The same.
        images: The same.
        open: Answers that are begun and not finished.
        metrics: What is measured.
        phase: ``loading`` before the engines run, ``draining`` when they are about to end.
    """

    def __init__(
        self, models: Sequence[ServedModel], settings: ServerSettings, images: RemoteImages
    ) -> None:
        self.models = {served.name: served for served in models}
        self.settings = settings
        self.images = images
        self.open = 0
        self.phase: Literal["loading", "ready", "draining"] = "loading"
        self.metrics = Metrics(self._loads, lambda: self.open)
        self._engines = AsyncExitStack()
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]

    async def __aenter__(self) -> Service:
        for served in self.models.values():
            await self._engines.enter_async_context(served.engine)
        self.phase = "ready"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drain()
        await self._engines.aclose()

    def drain(self) -> None:
        """Say that the server ends: what has begun may end, and nothing new is sent here."""
        self.phase = "draining"

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self.phase == "ready"

    def states(self) -> dict[str, ModelState]:
        """Return how each model is: ``loaded`` or ``failed``."""
        return {
            name: "failed" if self.is_open and not served.engine.is_running else "loaded"
            for name, served in self.models.items()
        }

    def _loads(self) -> dict[str, EngineLoad | None]:
        return {name: served.engine.load for name, served in self.models.items()}

    async def model(self, name: str | None) -> ServedModel:
        """Return a model by its name, or the only one; the request uses it from now on.

        Raises:
            ApiError: There is none.
        """
        if name is None and len(self.models) == 1:
            (name,) = self.models
        if name is None or name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404, f"model {name!r:.80}: expected {known}", param="model", code="model_not_found"
            )
        context = REQUEST.get()
        context.model, context.metrics = name, self.metrics.of(name)
        return self.models[name]

    @contextmanager
    def room(self, answers: int) -> Iterator[None]:
        """Hold places for answers.

        Raises:
            ApiError: There are too few.
        """
        if self.open + answers > self.settings.max_answers:
            raise ApiError(
                429,
                f"{self.open} answers are begun, and at most {self.settings.max_answers} may be",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
            )
        self.open += answers
        try:
            yield
        finally:
            self.open -= answers

    def allows(self, authorization: str) -> bool:
        """Return whether a request's ``Authorization`` holds a key, in time that tells nothing."""
        if not self._keys:
            return True
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = [hmac.compare_digest(digest, known) for known in self._keys]
        return scheme.lower() == "bearer" and any(found)
