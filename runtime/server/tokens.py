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


class TokenizeAnswer(BaseModel):
    """A text's ids; `max_model_len` are the positions of the model's context."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeAnswer(BaseModel):
    """The text of ids."""

    prompt: str


async def tokenize(request: Request, service: Service) -> Response:
    """Return a text's ids.

    Raises:
        ApiError: The request is wrong.
    """
    fields = await read_fields(request, TokenizeFields, service.settings)
    served = await service.model(fields.model)
    ids = served.tokenizer.encode(fields.prompt, bos=fields.add_special_tokens)
    context = served.model.settings.context
    found = TokenizeAnswer(count=len(ids), max_model_len=context, tokens=ids)
    return JSONResponse(found.model_dump())


async def detokenize(request: Request, service: Service) -> Response:
    """Return the text of ids.

    Raises:
        ApiError: The request is wrong.
    """
    fields = await read_fields(request, DetokenizeFields, service.settings)
    served = await service.model(fields.model)
    found = DetokenizeAnswer(prompt=served.tokenizer.decode(fields.tokens))
    return JSONResponse(found.model_dump())
