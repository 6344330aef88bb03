"""``/v1/models``: https://platform.openai.com/docs/api-reference/models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.service import Service


class ModelDescription(BaseModel):
    """A model that is served.

    `max_model_len` are the positions of its context, as vLLM says, once it is `loaded`.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mvlm"
    max_model_len: int | None
    loaded: bool


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelDescription]


async def list_models(_: Request, service: Service) -> Response:
    """List the models."""
    found = ModelList(data=[_description(service, name) for name in service.models.names])
    return JSONResponse(found.model_dump())


async def show_model(request: Request, service: Service) -> Response:
    """Describe a model.

    Raises:
        ApiError: There is none of this name.
    """
    name = service.known_model(request.path_params["name"])
    return JSONResponse(_description(service, name).model_dump())


def _description(service: Service, name: str) -> ModelDescription:
    created, context, is_loaded = service.models.describe(name)
    return ModelDescription(id=name, created=created, max_model_len=context, loaded=is_loaded)
