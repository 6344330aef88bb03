"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, as vLLM spells them.

They may leave out the model where one alone is served: lm-eval's remote tokenizer does.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.api.bodies import read_fields
from mvlm.runtime.server.service import Service
from mvlm.runtime.tokenizer import Tokenizer


class TokenizeFields(BaseModel):
    """The body of ``/tokenize``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str | None = None
    prompt: str
    add_special_tokens: bool = True


class DetokenizeFields(BaseModel):
    """The body of ``/detokenize``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=1 << 31)]]


class TokenizeAnswer(BaseModel):
    """A text's ids; `max_model_len` are the positions of the model's context."""

    count: int
    max_model_len: int
    tokens: list[int]


class TokenizerInfo(BaseModel):
    """How the tokenizer spells its special tokens."""

    tokenizer_class: str
    bos_token: str
    eos_token: str
    unk_token: str
    add_bos_token: bool
    legacy: bool


class DetokenizeAnswer(BaseModel):
    """The text of ids."""

    prompt: str


async def tokenize(request: Request, service: Service) -> Response:
    """Return a text's ids; those of a special token's spelling alone are the special token's.

    Raises:
        ApiError: The request is wrong.
    """
    fields = await read_fields(request, TokenizeFields, service)
    served = await service.model(fields.model)
    ids = _ids(served.tokenizer, fields.prompt, fields.add_special_tokens)
    context = served.model.settings.context
    found = TokenizeAnswer(count=len(ids), max_model_len=context, tokens=ids)
    return JSONResponse(found.model_dump())


async def detokenize(request: Request, service: Service) -> Response:
    """Return the text of ids.

    Raises:
        ApiError: The request is wrong.
    """
    fields = await read_fields(request, DetokenizeFields, service)
    served = await service.model(fields.model)
    found = DetokenizeAnswer(prompt=served.tokenizer.decode(fields.tokens))
    return JSONResponse(found.model_dump())


async def tokenizer_info(request: Request, service: Service) -> Response:
    """Describe the tokenizer of a model, named by the query's ``model``.

    Raises:
        ApiError: There is no such model.
    """
    served = await service.model(request.query_params.get("model"))
    tokenizer = served.tokenizer
    found = TokenizerInfo(
        tokenizer_class="LlamaTokenizer",
        bos_token=tokenizer.piece(tokenizer.bos_id),
        eos_token=tokenizer.piece(tokenizer.eos_id),
        unk_token=tokenizer.piece(tokenizer.unk_id),
        add_bos_token=True,
        legacy=tokenizer.legacy,
    )
    return JSONResponse(found.model_dump())


def _ids(tokenizer: Tokenizer, text: str, bos: bool) -> list[int]:
    special = {tokenizer.piece(token): token for token in (tokenizer.bos_id, tokenizer.eos_id)}
    if text in special:
        return [special[text]]
    return tokenizer.encode(text, bos=bos)
