"""Requests that are wrong, or mean harm: each gets a status and a sentence, and others go on."""

from __future__ import annotations

import base64
import json
import socket
import time
from typing import Any

import httpx
import openai
import pytest

from tests.runtime.server.conftest import NAME, Running, Serve
from tests.runtime.server.test_chat_api import QUESTION, ask, picture, shown

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": QUESTION}]


def chat(server: Running, **fields: Any) -> httpx.Response:
    body = {"model": NAME, "messages": USER, "max_tokens": 2} | fields
    return server.post(CHAT, json=body)


def content(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def image(url: str) -> list[dict[str, Any]]:
    text = {"type": "text", "text": QUESTION}
    return content({"type": "image_url", "image_url": {"url": url}}, text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": "hello"}, "messages: Input should be a valid list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role 'robot': expected system"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0: content: expected a text"),
        ({"messages": [{"role": "user", "content": " "}]}, "the prompt is empty"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "expected the user's message"),
        (
            {"messages": [*USER, {"role": "assistant", "content": "x"}]},
            "expected the user's message at the beginning and at the end",
        ),
        ({"messages": content({"type": "input_audio"})}, "type 'input_audio': expected text or"),
        ({"messages": image("http://127.0.0.1/x.png")}, "this server fetches none"),
        ({"messages": image("file:///etc/passwd")}, "this server fetches none"),
        ({"messages": image("data:image/png,abc")}, "expected a data URL in base64"),
        ({"messages": image("data:image/png;base64,@@")}, "base64 is damaged"),
        ({"messages": image("data:image/png;base64,aGVsbG8=")}, "expected"),
        ({"messages": content(*shown(picture()) * 17)}, "at most 16 images, found 17"),
        ({"temperature": 3}, "temperature: Input should be less than or equal to 2"),
        ({"temperature": "warm"}, "temperature: Input should be a valid number"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 17}, "n: Input should be less than or equal to 16"),
        ({"stop": ["a"] * 17}, "stop: expected at most 16"),
        ({"stop": [""]}, "stop: expected"),
        ({"logit_bias": {"x": 1}}, "logit_bias: 'x' is no token id"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
        ({"stream_options": {}}, "stream_options needs stream"),
        ({"tools": [{"type": "function"}]}, "tools: "),
        ({"modalities": ["audio"]}, "modalities: "),
        ({"wisdom": 5}, "wisdom: no such field"),
        ({"messages": [{"role": "user", "content": "x " * 3000}]}, "fit into the context"),
    ],
    ids=str,
)
def test_wrong_fields(server: Running, fields: dict[str, Any], message: str) -> None:
    found = chat(server, **fields)
    assert found.status_code == 400, found.text
    error = found.json()["error"]
    assert message in error["message"] and error["type"] == "invalid_request_error"
    assert "Traceback" not in found.text
    assert chat(server).status_code == 200


def test_an_error_before_a_stream_has_a_status(server: Running) -> None:
    found = chat(server, stream=True, messages=[{"role": "user", "content": "x " * 3000}])
    assert found.status_code == 400
    assert found.json()["error"]["code"] == "context_length_exceeded"


def test_an_unknown_model(server: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'other': expected small"):
        server.openai().chat.completions.create(model="other", messages=USER)  # type: ignore[arg-type]
    assert server.openai().models.retrieve(NAME).id == NAME
    assert [each.id for each in server.openai().models.list()] == [NAME]
    with pytest.raises(openai.NotFoundError):
        server.openai().models.retrieve("other")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff\xfe", 400),
        (b'{"model": NaN}', 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, 400),
        (b'{"model": "small", "messages": ' + b"9" * 5000 + b"}", 400),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bodies_that_are_no_request(server: Running, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    found = server.post(CHAT, content=body, headers=headers)
    assert found.status_code == status
    assert found.json()["error"]["message"]
    assert server.post(CHAT, content=b"{}").status_code == 415


def test_a_body_that_is_too_long(serve: Serve) -> None:
    with serve(max_body_bytes=10_000) as server:
        assert chat(server, user="x" * 11_000).status_code == 413
        # One that does not say so.
        parts = iter([b"{" + b" " * 6_000] * 3)
        headers = {"content-type": "application/json"}
        assert server.post(CHAT, content=parts, headers=headers).status_code == 413
        assert chat(server).status_code == 200


def test_a_body_that_does_not_come(serve: Serve) -> None:
    with serve(body_seconds=0.3) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            connection.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
            assert b"408" in connection.recv(4096)
        assert chat(server).status_code == 200


def test_connections_that_say_nothing_hold_nobody_up(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(200)]
    for connection in idle[::2]:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: ")
    begin = time.monotonic()
    assert chat(server).status_code == 200
    assert time.monotonic() - begin < 5
    for connection in idle:
        connection.close()


def test_keys(serve: Serve) -> None:
    with serve(api_keys=("right", "other")) as server:
        for key in ("wrong", "righ", "right2"):
            with pytest.raises(openai.AuthenticationError, match="a valid API key is needed"):
                ask_with(server, key)
        for key in ("right", "other"):
            assert ask_with(server, key).choices
        for header in ("", "right", "Basic right", "Bearer", "Bearer \udcff"):
            headers = {b"authorization": header.encode("utf-8", "surrogateescape")}
            for path in ("/v1/models", "/v1/models/small"):
                assert httpx.get(server.url + path, headers=headers).status_code == 401
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def ask_with(server: Running, key: str) -> Any:
    client = server.openai(api_key=key)
    return client.chat.completions.create(model=NAME, messages=USER, max_tokens=2)  # type: ignore[call-overload]


def test_a_name_that_was_pointed_here(serve: Serve) -> None:
    """A page whose name resolves to this machine has another ``Host``."""
    with serve(hosts=("127.0.0.1", "localhost")) as server:
        assert chat(server).status_code == 200
        found = httpx.get(f"{server.url}/v1/models", headers={"host": "evil.example"})
        assert found.status_code == 400


@pytest.mark.parametrize("path", ["/other", "/v1", "/v1/chat", "/../etc/passwd", "/v1/models/%2e"])
def test_paths_that_are_none(server: Running, path: str) -> None:
    found = httpx.get(server.url + path)
    assert found.status_code == 404 and found.json()["error"]["message"]
    assert httpx.get(server.url + CHAT).status_code == 405


def test_an_image_that_would_fill_the_memory(server: Running) -> None:
    """Its header says a hundred thousand pixels in each direction."""
    data = bytearray(picture())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    url = "data:image/png;base64," + base64.b64encode(bytes(data)).decode()
    found = chat(server, messages=image(url))
    assert found.status_code == 400
    assert chat(server).status_code == 200


def test_a_bad_request_beside_good_ones(server: Running) -> None:
    stream = ask(server, stream=True, max_tokens=60)
    next(iter(stream))
    for _ in range(5):
        assert chat(server, temperature=9).status_code == 400
        assert chat(server, messages=image("data:image/png;base64,aGVsbG8=")).status_code == 400
    assert len(list(stream)) > 10
    json.dumps(httpx.get(f"{server.url}/v1/models").json())
    server.wait_until_idle()
