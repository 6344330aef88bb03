"""The ASGI application: routes, errors, keys, and its life."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mvlm.runtime.server.chat import chat_completions
from mvlm.runtime.server.completions import completions
from mvlm.runtime.server.errors import ApiError, api_error
from mvlm.runtime.server.page_routes import page_routes
from mvlm.runtime.server.served_model import ServedModel
from mvlm.runtime.server.service import Service
from mvlm.runtime.server.settings import ServerSettings
from mvlm.runtime.server.tokens import detokenize, tokenize

_log = logging.getLogger(__name__)
Handler = Callable[[Request, Service], Awaitable[Response]]


def create_app(models: Sequence[ServedModel], settings: ServerSettings) -> Starlette:
    """Return the application; its engines run from its start to its end.

    Args:
        models: Loaded, their names unique.
        settings: The limits.
    """
    service = Service(models, settings)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for served in models:
                await stack.enter_async_context(served.engine)
            yield

    def route(path: str, handler: Handler, method: str = "POST") -> Route:
        async def endpoint(request: Request) -> Response:
            if not service.allows(request.headers.get("authorization", "")):
                error = ApiError(401, "a valid API key is needed", code="invalid_api_key")
                return error.response()
            try:
                return await handler(request, service)
            except Exception as error:
                told = api_error(error)
                if told.status == 500:
                    _log.exception("a request has failed")
                return told.response()

        return Route(path, endpoint, methods=[method])

    return Starlette(
        routes=[
            route("/v1/chat/completions", chat_completions),
            route("/v1/completions", completions),
            route("/v1/models", list_models, "GET"),
            route("/v1/models/{name}", show_model, "GET"),
            route("/tokenize", tokenize),
            route("/detokenize", detokenize),
            Route("/health", health, methods=["GET"]),
            *page_routes(),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts))],
        exception_handlers={HTTPException: _http_error},
        lifespan=life,
    )


async def health(_: Request) -> Response:
    """Say that the server runs; it takes no key."""
    return JSONResponse({"status": "ok"})


async def list_models(_: Request, service: Service) -> Response:
    """List the models."""
    data = [_description(served) for served in service.models.values()]
    return JSONResponse({"object": "list", "data": data})


async def show_model(request: Request, service: Service) -> Response:
    """Describe a model."""
    return JSONResponse(_description(service.model(request.path_params["name"])))


def _description(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "mvlm",
        "max_model_len": served.model.settings.context,
    }


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, str(error.detail)).response()
