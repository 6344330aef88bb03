"""What the server answers: the paths, with who handles them."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.server.api import status
from mvlm.runtime.server.api.bodies import ChatFields, CompletionFields
from mvlm.runtime.server.api.chat import chat_completions
from mvlm.runtime.server.api.completions import completions
from mvlm.runtime.server.api.endpoint import Endpoint, Handler
from mvlm.runtime.server.api.model_list import ModelDescription, ModelList, list_models, show_model
from mvlm.runtime.server.api.openapi import openapi_document
from mvlm.runtime.server.api.response_fields import ResponseFields
from mvlm.runtime.server.api.responses import responses
from mvlm.runtime.server.api.tokens import (
    DetokenizeAnswer,
    DetokenizeFields,
    TokenizeAnswer,
    TokenizeFields,
    TokenizerInfo,
    detokenize,
    tokenize,
    tokenizer_info,
)
from mvlm.runtime.server.service import Service

_JSON_OR_EVENTS = ("application/json", "text/event-stream")


async def openapi(_: Request, service: Service) -> Response:
    """Describe this server, as OpenAPI does."""
    return JSONResponse(openapi_document(ENDPOINTS, bool(service.settings.api_keys)))


def _computing(path: str, handler: Handler, fields: type[BaseModel]) -> Endpoint:
    return Endpoint("POST", path, handler, fields, media_types=_JSON_OR_EVENTS, computes=True)


ENDPOINTS = (
    _computing("/v1/chat/completions", chat_completions, ChatFields),
    _computing("/v1/completions", completions, CompletionFields),
    _computing("/v1/responses", responses, ResponseFields),
    Endpoint("GET", "/v1/models", list_models, answer=ModelList),
    Endpoint("GET", "/v1/models/{name}", show_model, answer=ModelDescription),
    Endpoint("POST", "/tokenize", tokenize, TokenizeFields, TokenizeAnswer),
    Endpoint("POST", "/detokenize", detokenize, DetokenizeFields, DetokenizeAnswer),
    Endpoint("GET", "/tokenizer_info", tokenizer_info, answer=TokenizerInfo),
    Endpoint("GET", "/health", status.health, answer=status.Health, is_open=True),
    Endpoint("GET", "/ready", status.ready, answer=status.Readiness, is_open=True, others=(503,)),
    Endpoint("GET", "/metrics", status.metrics, media_types=status.METRICS_TYPES),
    Endpoint("GET", "/openapi.json", openapi, is_open=True),
)
