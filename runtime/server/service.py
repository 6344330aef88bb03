"""What all requests share: the models, the limits, and how much there is to do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.http.body_room import BodyRoom
from mvlm.runtime.server.models.model_pool import ModelPool
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.observability.metrics import Metrics
from mvlm.runtime.server.observability.request_context import REQUEST
from mvlm.runtime.server.remote_images import RemoteImages
from mvlm.runtime.server.settings import ServerSettings


class Service:
    """The models that are served; an asynchronous context in which their engines run.

    Args:
        models: Loaded, or to be loaded on demand.
        settings: The limits.
        images: Fetches images.

    Attributes:
        models: The same.
        settings: The same.
        images: The same.
        open: Answers that are begun and not finished.
        bodies: The memory that bodies may take together.
        metrics: What is measured.
        phase: ``loading`` before the engines run, ``draining`` when they are about to end.
    """

    def __init__(self, models: ModelPool, settings: ServerSettings, images: RemoteImages) -> None:
        self.models = models
        self.settings = settings
        self.images = images
        self.open = 0
        self.bodies = BodyRoom(settings.body_room)
        self.phase: Literal["loading", "ready", "draining"] = "loading"
        self.metrics = Metrics(models.loads, lambda: self.open)
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]

    async def __aenter__(self) -> Service:
        await self.models.__aenter__()
        self.phase = "ready"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drain()
        await self.models.__aexit__(kind, error, traceback)

    def drain(self) -> None:
        """Say that the server ends: what has begun may end, and nothing new is sent here."""
        self.phase = "draining"

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self.phase == "ready"

    def known_model(self, name: str | None) -> str:
        """Return a model's name if there is one of this name, or the only one's.

        Raises:
            ApiError: There is none.
        """
        names = self.models.names
        if name is None and len(names) == 1:
            (name,) = names
        if name is None or name not in names:
            known = ", ".join(names)
            raise ApiError(
                404, f"model {name!r:.80}: expected {known}", param="model", code="model_not_found"
            )
        return name

    async def model(self, name: str | None) -> ServedModel:
        """Return a model by its name, or the only one; the request holds it from now on.

        Raises:
            ApiError: There is none, or it cannot be loaded.
        """
        context, known = REQUEST.get(), self.known_model(name)
        context.model, context.metrics = known, self.metrics.of(known)
        return await self.models.hold(known, context.held)

    def check_room(self, answers: int = 1) -> None:
        """Check that there are places for answers, before work is done for them.

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

    @contextmanager
    def room(self, answers: int) -> Iterator[None]:
        """Hold places for answers.

        Raises:
            ApiError: There are too few.
        """
        self.check_room(answers)
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
