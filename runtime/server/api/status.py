"""``/health``, ``/ready`` and ``/metrics``: how the server is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.models.model_pool import ModelState
from mvlm.runtime.server.service import Service

METRICS_TYPES = ("text/plain", "application/openmetrics-text")


class Health(BaseModel):
    """The server runs."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be answered, and how each model is."""

    status: Literal["ready", "loading", "draining", "failed"]
    models: dict[str, ModelState]


async def health(_: Request, __: Service) -> Response:
    """Say that the server runs."""
    return JSONResponse(Health().model_dump())


async def ready(_: Request, service: Service) -> Response:
    """Say whether requests can be answered: 200 if so, or else 503."""
    states = service.models.states()
    has_failed = service.is_open and "failed" in states.values()
    found = Readiness(status="failed" if has_failed else service.phase, models=states)
    return JSONResponse(found.model_dump(), 200 if found.status == "ready" else 503)


async def metrics(request: Request, service: Service) -> Response:
    """Return what is measured."""
    body, media_type = service.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})
