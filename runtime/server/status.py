"""``/health``, ``/ready`` and ``/metrics``: how the server is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.service import Service


async def health(_: Request, __: Service) -> Response:
    """Say that the server runs."""
    return JSONResponse({"status": "ok"})


async def ready(_: Request, service: Service) -> Response:
    """Say whether requests can be answered: 200 if so, or else 503."""
    states = service.states()
    is_ready = service.is_open and "failed" not in states.values()
    status = "ready" if is_ready else "failed" if "failed" in states.values() else service.phase
    return JSONResponse({"status": status, "models": states}, 200 if is_ready else 503)


async def metrics(request: Request, service: Service) -> Response:
    """Return what is measured."""
    body, media_type = service.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})
