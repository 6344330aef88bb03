"""What all requests share: the models, the limits, and how much there is to do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.served_model import ServedModel
from mvlm.runtime.server.settings import ServerSettings


class Service:
    """The models that are served.

    Args:
        models: Loaded, their names unique.
        settings: The limits.

    Attributes:
        models: The same, by name.
        settings: The same.
        open: Answers that are begun and not finished.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServerSettings) -> None:
        self.models = {served.name: served for served in models}
        self.settings = settings
        self.open = 0
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]

    def model(self, name: str) -> ServedModel:
        """Return a model by its name.

        Raises:
            ApiError: There is none.
        """
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404, f"model {name!r:.80}: expected {known}", param="model", code="model_not_found"
            )
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
