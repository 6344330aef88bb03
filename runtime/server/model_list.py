"""``/v1/models``: https://platform.openai.com/docs/api-reference/models."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.served_model import ServedModel
from mvlm.runtime.server.service import Service


async def list_models(_: Request, service: Service) -> Response:
    """List the models."""
    data = [_description(served) for served in service.models.values()]
    return JSONResponse({"object": "list", "data": data})


async def show_model(request: Request, service: Service) -> Response:
    """Describe a model.

    Raises:
        ApiError: There is none of this name.
    """
    return JSONResponse(_description(await service.model(request.path_params["name"])))


def _description(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "mvlm",
        "max_model_len": served.model.settings.context,
    }
