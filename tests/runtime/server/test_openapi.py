"""``/openapi.json`` says what the server answers, and the server answers as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.server.api.bodies import ChatFields, CompletionFields
from mvlm.runtime.server.api.response_fields import ResponseFields
from mvlm.runtime.server.api.routes import ENDPOINTS
from mvlm.runtime.server.app import create_app
from mvlm.runtime.server.settings import ServerSettings
from tests.runtime.server.conftest import NAME, Running, Serve

COMPUTING = {
    "/v1/chat/completions": ChatFields,
    "/v1/completions": CompletionFields,
    "/v1/responses": ResponseFields,
}


@pytest.fixture(scope="module")
def document(server: Running) -> Any:
    return httpx.get(f"{server.url}/openapi.json").json()


def test_every_route_is_in_it(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    app = create_app([], ServerSettings())
    routes = [each for each in app.routes if isinstance(each, Route) and each.name != "page"]
    answered = {
        (method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}
    }
    assert told == answered == {(each.method, each.path) for each in ENDPOINTS}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert "200" in operation["responses"]


@pytest.mark.parametrize("path", COMPUTING)
def test_every_field_is_in_it(document: Any, path: str) -> None:
    operation = document["paths"][path]["post"]
    assert set(operation["responses"]) >= {"400", "404", "408", "413", "415", "429", "503", "504"}
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert set(schema["properties"]) == set(COMPUTING[path].model_fields)
    assert schema["additionalProperties"] is False
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "text/event-stream",
    }


def test_references_lead_somewhere(document: Any) -> None:
    schemas, found = document["components"]["schemas"], list[str]()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend([node["$ref"]] if "$ref" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for each in node:
                walk(each)

    walk(document)
    assert len(found) > 20
    assert {each.removeprefix("#/components/schemas/") for each in found} == set(schemas)


def test_a_key_is_in_it_where_one_is_needed(serve: Serve, document: Any) -> None:
    assert document["paths"]["/v1/models"]["get"]["security"] == []
    with serve(api_keys=("right",)) as server:
        found = httpx.get(f"{server.url}/openapi.json").json()
        operation = found["paths"]["/v1/models"]["get"]
        assert operation["security"] == [{"key": []}] and "401" in operation["responses"]
        assert found["paths"]["/health"]["get"]["security"] == []
        assert found["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def narrowed(document: Any) -> Any:
    """The document with models and messages that there are, so that some requests get that far."""
    schemas = document["components"]["schemas"]
    message = {
        "type": "object",
        "properties": {"role": {"enum": ["user"]}, "content": {"type": "string"}},
        "required": ["role", "content"],
    }
    several = {"type": "array", "items": message, "minItems": 1}
    changes: dict[str, Any] = {"model": {"enum": [NAME]}, "messages": several}
    changes |= {"input": {"anyOf": [{"type": "string"}, several]}}
    changed = 0
    for schema in schemas.values():
        fields = schema.get("properties", {})
        for name in set(changes) & set(fields):
            null = [{"type": "null"}] if {"type": "null"} in fields[name].get("anyOf", ()) else []
            fields[name] = {"anyOf": [changes[name], *null]}
            changed += 1
    assert changed == 7
    document["paths"]["/v1/models/{name}"]["get"]["parameters"][0]["schema"] = {"enum": [NAME]}
    return document


@pytest.mark.chat
@pytest.mark.parametrize("keys", [(), ("right",)])
def test_requests_made_from_it(serve: Serve, tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Schemathesis makes requests, right and wrong ones; each is answered as documented."""
    engine = EngineSettings(context=256, capacity=2048)
    with serve(engine, api_keys=keys) as server:
        document = narrowed(httpx.get(f"{server.url}/openapi.json").json())
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        command = [sys.executable, "-m", "schemathesis.cli", "run"]
        command += ["openapi.json", "--url", server.url, "--checks", "all", "--max-examples", "60"]
        # Not every request that fits the schema can be answered: a model's name, for one.
        command += ["--exclude-checks", "positive_data_acceptance", "--generation-deterministic"]
        command += ["--request-timeout", "60", "--no-color", "--continue-on-failure"]
        for key in keys:
            command += ["--header", f"Authorization: Bearer {key}"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800)
        assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
        operations = sum(map(len, document["paths"].values()))
        assert re.search(rf"Tested: {operations}\b", found.stdout)
        server.wait_until_idle()
