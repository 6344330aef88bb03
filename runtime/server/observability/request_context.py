"""What belongs to one request: its identifier, what it took, and what it holds until its end.

A context variable holds it, which all tasks of a request inherit; the outermost middleware sets it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import uuid4

from mvlm.runtime.engine.asynchronous import AsyncAnswer
from mvlm.runtime.server.observability.model_metrics import ModelMetrics

_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
NO_ROUTE = "other"


@dataclass
class RequestContext:
    """A request, from its headers to the end of its response.

    Attributes:
        id: Names it in the log and in the response.
        method: The HTTP method.
        path: As the client wrote it.
        begun: When it came, by ``time.perf_counter``.
        route: The path as the server defines it, or `NO_ROUTE`.
        model: The name of the model that it uses, if it is one that is served.
        metrics: The model's.
        status: Of the response, once it has begun.
        is_answered: Whether the whole response was handed over.
        is_gone: Whether the client has gone before that.
        groups: Its answers; those of a group share a prompt.
        first_token: When its first token came.
        reasons: Why its answers ended.
        held: What is released at its end.
    """

    id: str
    method: str
    path: str
    begun: float = field(default_factory=time.perf_counter)
    route: str = NO_ROUTE
    model: str | None = None
    metrics: ModelMetrics | None = None
    status: int | None = None
    is_answered: bool = False
    is_gone: bool = False
    groups: list[Sequence[AsyncAnswer]] = field(default_factory=list)
    first_token: float | None = None
    reasons: list[str] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def prompt_tokens(self) -> int:
        """Positions of its prompts, each counted once."""
        return sum(group[0].stats.prompt for group in self.groups)

    @property
    def cached_tokens(self) -> int:
        """Those of them that were in the prefix cache."""
        return sum(group[0].stats.cached for group in self.groups)

    @property
    def completion_tokens(self) -> int:
        """Tokens of its answers."""
        return sum(answer.count for group in self.groups for answer in group)


REQUEST: ContextVar[RequestContext] = ContextVar("REQUEST")


def request_id(given: bytes) -> str:
    """Return a client's own identifier if it is short and plain, or else a new one."""
    return given.decode("ascii") if _SAFE_ID.fullmatch(given) else f"req_{uuid4().hex}"


class TokenClock:
    """Times the tokens of an answer, as they are handed over."""

    def __init__(self, answer: AsyncAnswer) -> None:
        self._request, self._submitted = REQUEST.get(), answer.stats.submitted
        assert self._request.metrics is not None
        self._metrics, self._last = self._request.metrics, 0.0

    def token(self) -> None:
        """Note that a token has come."""
        now = time.perf_counter()
        if self._last:
            self._metrics.between_tokens.observe(now - self._last)
        else:
            self._metrics.first_token.observe(now - self._submitted)
            if self._request.first_token is None:
                self._request.first_token = now
        self._last = now

    def end(self, reason: str) -> None:
        """Note why the answer has ended."""
        self._request.reasons.append(reason)
