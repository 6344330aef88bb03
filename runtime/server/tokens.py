"""``/tokenize`` and ``/detokenize``, as vLLM spells them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.bodies import read_fields
from mvlm.runtime.server.service import Service


class TokenizeFields(BaseModel):
    """The body of ``/tokenize``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    prompt: str
    add_special_tokens: bool = True


class DetokenizeFields(BaseModel):
    """The body of ``/detokenize``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    tokens: list[Annotated[int, Field(ge=0, lt=1 << 31)]]


async def tokenize(request: Request, service: Service) -> Response:
    """Return a text's ids.

    Raises:
        ApiError: The request is wrong.
    """
    fields = await read_fields(request, TokenizeFields, service.settings)
    served = await service.model(fields.model)
    ids = served.tokenizer.encode(fields.prompt, bos=fields.add_special_tokens)
    context = served.model.settings.context
    return JSONResponse({"count": len(ids), "max_model_len": context, "tokens": ids})


async def detokenize(request: Request, service: Service) -> Response:
    """Return the text of ids.

    Raises:
        ApiError: The request is wrong.
    """
    fields = await read_fields(request, DetokenizeFields, service.settings)
    served = await service.model(fields.model)
    return JSONResponse({"prompt": served.tokenizer.decode(fields.tokens)})
