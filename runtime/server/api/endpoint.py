"""A path that the server answers, as its routes and its document have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from mvlm.runtime.server.service import Service

Handler = Callable[[Request, Service], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path that is answered.

    Attributes:
        method: The HTTP method.
        path: As Starlette and OpenAPI write it.
        handler: Answers a request; the first line of its docstring is the summary.
        fields: The request's body; None if there is none.
        answer: The document that it answers with; None for one that OpenAI's API defines.
        media_types: What it answers with.
        computes: Whether a model computes answers for it.
        is_open: Whether it takes no key.
        others: Further statuses with the same document.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    fields: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    media_types: tuple[str, ...] = ("application/json",)
    computes: bool = False
    is_open: bool = False
    others: tuple[int, ...] = ()
