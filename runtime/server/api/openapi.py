"""The server's own OpenAPI document, made from its routes and the models of their bodies.

Format: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mvlm.runtime.server.api.endpoint import Endpoint
from mvlm.runtime.server.errors import ErrorDocument

_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_KEY = "key"
_STATUSES = {
    200: "The answer.",
    400: "The request is wrong; `param` names the field.",
    401: "A key is needed, and there is none that is right.",
    404: "There is no such model.",
    408: "The body took too long.",
    413: "The body is too long.",
    415: "The body is not `application/json`.",
    429: "Too much is begun; `Retry-After` says when to come again.",
    500: "The server has failed.",
    503: "It cannot be answered now.",
    504: "The answer took too long.",
}


def openapi_document(endpoints: Sequence[Endpoint], has_keys: bool) -> dict[str, Any]:
    """Describe the server.

    Args:
        endpoints: What it answers.
        has_keys: Whether requests need a key.
    """
    models: set[type[BaseModel]] = {ErrorDocument, *_models(endpoints)}
    ordered = sorted(models, key=lambda model: model.__name__)
    schemas, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_REFERENCE
    )
    names = {model: schemas[model, "validation"] for model in ordered}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, names, has_keys)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mvlm",
            "version": metadata.version("mvlm"),
            "description": "MobileVLM models by OpenAI's HTTP API.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _models(endpoints: Iterable[Endpoint]) -> Iterator[type[BaseModel]]:
    for endpoint in endpoints:
        yield from filter(None, (endpoint.fields, endpoint.answer))


def _operation(
    endpoint: Endpoint, names: Mapping[type[BaseModel], Mapping[str, Any]], has_keys: bool
) -> dict[str, Any]:
    """Describe what a method of a path does."""
    answer = names[endpoint.answer] if endpoint.answer else {"type": "object"}
    error = {"application/json": {"schema": names[ErrorDocument]}}
    responses = {}
    for status in _statuses(endpoint, has_keys):
        is_answer = status == 200 or status in endpoint.others
        content = {kind: _content(kind, answer) for kind in endpoint.media_types}
        responses[str(status)] = {
            "description": _STATUSES[status],
            "content": content if is_answer else error,
        }
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": (endpoint.handler.__doc__ or "").partition("\n")[0],
        "security": [{_KEY: []}] if has_keys and not endpoint.is_open else [],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(endpoint.path)
        ],
        "responses": responses,
    }
    if endpoint.fields is not None:
        schema = names[endpoint.fields]
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _content(media_type: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"schema": answer} if media_type == "application/json" else {}


def _statuses(endpoint: Endpoint, has_keys: bool) -> list[int]:
    """Return the statuses that an endpoint may answer with."""
    found = {200, 400, *endpoint.others}  # 400: a name under which requests do not come
    if has_keys and not endpoint.is_open:
        found.add(401)
    if endpoint.fields is not None:
        found |= {404, 408, 413, 415, 429, 500, 503}
    if _PARAMETER.search(endpoint.path):
        found.add(404)
    if endpoint.computes:
        found.add(504)
    return sorted(found)
