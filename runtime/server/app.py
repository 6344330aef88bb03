"""The ASGI application: routes, errors, keys, and its life."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mvlm.runtime.server.api.endpoint import Endpoint
from mvlm.runtime.server.api.routes import ENDPOINTS
from mvlm.runtime.server.errors import ApiError, api_error
from mvlm.runtime.server.models.model_pool import ModelPool
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.observability.observation import Observation
from mvlm.runtime.server.observability.request_context import REQUEST
from mvlm.runtime.server.page_routes import page_routes
from mvlm.runtime.server.remote_images import FetchLimits, RemoteImages
from mvlm.runtime.server.service import Service
from mvlm.runtime.server.settings import ServerSettings

_log = logging.getLogger(__name__)


def create_app(
    models: Sequence[ServedModel] | ModelPool,
    settings: ServerSettings,
    images: RemoteImages | None = None,
) -> Starlette:
    """Return the application; its engines run from its start to its end.

    Args:
        models: Loaded, their names unique; or a pool that loads them on demand.
        settings: The limits.
        images: Fetches images; by `settings` if None.

    Raises:
        UsageError: A host of images is none.

    Returns:
        The application; its ``state.service`` is the :class:`Service`.
    """
    limits = FetchLimits(settings.max_body_bytes, settings.image_seconds)
    pool = models if isinstance(models, ModelPool) else ModelPool(models)
    service = Service(pool, settings, images or RemoteImages(settings.image_hosts, limits))

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        async with service:
            yield

    app = Starlette(
        routes=[*(_route(endpoint, service) for endpoint in ENDPOINTS), *page_routes()],
        middleware=[
            Middleware(Observation, service.metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts)),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=life,
    )
    app.state.service = service
    return app


def _route(endpoint: Endpoint, service: Service) -> Route:
    async def answer(request: Request) -> Response:
        REQUEST.get().route = endpoint.path
        if not (endpoint.is_open or service.allows(request.headers.get("authorization", ""))):
            error = ApiError(401, "a valid API key is needed", code="invalid_api_key")
            return error.response()
        try:
            return await endpoint.handler(request, service)
        except Exception as error:
            told = api_error(error)
            if told.status == 500:
                _log.exception("a request has failed")
            return told.response()

    return Route(endpoint.path, answer, methods=[endpoint.method])


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = ApiError(error.status_code, str(error.detail)).response()
    response.headers.update(error.headers or {})
    return response
