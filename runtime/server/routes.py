"""What the server answers: the paths, with who handles them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from mvlm.runtime.server import status
from mvlm.runtime.server.chat import chat_completions
from mvlm.runtime.server.completions import completions
from mvlm.runtime.server.model_list import list_models, show_model
from mvlm.runtime.server.responses import responses
from mvlm.runtime.server.service import Service
from mvlm.runtime.server.tokens import detokenize, tokenize

Handler = Callable[[Request, Service], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path that is answered.

    Attributes:
        method: The HTTP method.
        path: As Starlette writes it.
        handler: Answers a request.
        is_open: Whether it takes no key.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    is_open: bool = False


ENDPOINTS = (
    Endpoint("POST", "/v1/chat/completions", chat_completions),
    Endpoint("POST", "/v1/completions", completions),
    Endpoint("POST", "/v1/responses", responses),
    Endpoint("GET", "/v1/models", list_models),
    Endpoint("GET", "/v1/models/{name}", show_model),
    Endpoint("POST", "/tokenize", tokenize),
    Endpoint("POST", "/detokenize", detokenize),
    Endpoint("GET", "/health", status.health, is_open=True),
    Endpoint("GET", "/ready", status.ready, is_open=True),
    Endpoint("GET", "/metrics", status.metrics),
)
