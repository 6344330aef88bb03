"""``/metrics``, ``/ready`` and the log: what they tell of requests, and what they never tell."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from mvlm.runtime.server.app import create_app
from mvlm.runtime.server.observability import request_log
from mvlm.runtime.server.settings import ServerSettings
from tests.runtime.server.conftest import NAME, Running, Serve
from tests.runtime.server.test_chat_api import ask, picture, shown

MODEL = {"model": NAME}


def measured(server: Running) -> dict[tuple[str, frozenset[Any]], float]:
    found = httpx.get(f"{server.url}/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[Any]]:
    return f"mvlm_{name}", frozenset(labels.items())


def test_metrics_of_answers(server: Running) -> None:
    content = [*shown(picture(5)), {"type": "text", "text": "What is this, and why?"}]
    before = measured(server)
    found = [ask(server, [{"role": "user", "content": content}], n=2) for _ in range(2)]
    httpx.get(f"{server.url}/v1/models/small")
    httpx.get(f"{server.url}/no/such/path")
    server.wait_until_idle()
    after = measured(server)

    def grown(name: str, **labels: str) -> float:
        return after[key(name, **labels)] - before.get(key(name, **labels), 0)

    usage = [each.usage for each in found]
    cached = sum(each.prompt_tokens_details.cached_tokens for each in usage)
    assert cached > 0
    assert grown("prompt_tokens_total", **MODEL) == sum(each.prompt_tokens for each in usage)
    assert grown("cached_prompt_tokens_total", **MODEL) == cached
    assert grown("generation_tokens_total", **MODEL) == 80
    assert grown("time_to_first_token_seconds_count", **MODEL) == 4
    assert grown("time_between_tokens_seconds_count", **MODEL) == 76
    assert grown("http_requests_total", path="/v1/chat/completions", status="200") == 2
    assert grown("http_requests_total", path="/v1/models/{name}", status="200") == 1
    assert grown("http_requests_total", path="other", status="404") == 1
    engine = server.served.engine._engine
    assert after[key("encoded_images", **MODEL)] == engine.images.count > 0
    pages = [after[key("kv_pages", **MODEL, state=state)] for state in ("used", "cached", "free")]
    assert pages == [0, engine.prefixes.pages, engine.pool.free]
    for name in ("requests_waiting", "requests_running"):
        assert after[key(name, **MODEL)] == 0
    assert after[key("model_loaded", **MODEL)] == 1 and after[key("open_answers")] == 0
    assert after["process_resident_memory_bytes", frozenset()] > 1e6


def test_metrics_while_answers_are_computed(server: Running) -> None:
    stream = ask(server, stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
    next(iter(stream))
    found = measured(server)
    assert found[key("requests_running", **MODEL)] == 1 and found[key("open_answers")] == 1
    assert found[key("kv_pages", **MODEL, state="used")] > 0
    stream.close()
    server.wait_until_idle()


def test_metrics_need_the_key_and_readiness_does_not(serve: Serve) -> None:
    with serve(api_keys=("right",)) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        headers = {"authorization": "Bearer right", "accept": "application/openmetrics-text"}
        found = httpx.get(f"{server.url}/metrics", headers=headers)
        assert found.headers["content-type"].startswith("application/openmetrics-text")
        assert found.text.endswith("# EOF\n")
        found = httpx.get(f"{server.url}/ready")
        assert found.status_code == 200
        assert found.json() == {"status": "ready", "models": {NAME: "loaded"}}


def test_readiness_from_the_beginning_to_the_end(server: Running) -> None:
    app = create_app([server.served], ServerSettings())
    # Without its life, the application's engines do not run yet.
    found = TestClient(app).get("/ready")
    assert (found.status_code, found.json()["status"]) == (503, "loading")
    app.state.service.phase = "ready"
    assert TestClient(app).get("/ready").status_code == 200
    app.state.service.drain()
    found = TestClient(app).get("/ready")
    assert (found.status_code, found.json()["status"]) == (503, "draining")
    assert TestClient(app).get("/health").status_code == 200


def test_an_engine_that_fails_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with serve() as server:

        def fail() -> None:
            raise AssertionError("broken")

        server.served.engine._engine.step = fail  # type: ignore[assignment]
        found = server.post("/v1/completions", json={"model": NAME, "prompt": "Hello"})
        assert found.status_code == 503
        found = httpx.get(f"{server.url}/ready")
        assert found.status_code == 503
        assert found.json() == {"status": "failed", "models": {NAME: "failed"}}


def records(caplog: pytest.LogCaptureFixture, count: int) -> list[logging.LogRecord]:
    """The records of requests; a client has its answer before the line is written."""
    end = time.monotonic() + 20
    while True:
        found = [each for each in caplog.records if each.name == request_log.__name__]
        if len(found) >= count:
            assert len(found) == count
            return found
        assert time.monotonic() < end, "no line is written"
        time.sleep(0.01)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The JSON lines that were logged."""
    caplog.set_level(logging.INFO, request_log.__name__)
    formatter = request_log._JsonFormatter()

    def found(count: int) -> list[dict[str, Any]]:
        texts = [formatter.format(each) for each in records(caplog, count)]
        assert not any("\n" in text or not text.isascii() for text in texts)
        return [json.loads(text) for text in texts]

    return found


def test_a_line_for_each_request(server: Running, lines: Any) -> None:
    found = ask(server, "A secret of mine", extra_headers={"x-request-id": "mine-1.2_3"})
    httpx.get(f"{server.url}/v1/models/none")
    server.wait_until_idle()
    first, second = lines(2)
    assert first["request_id"] == "mine-1.2_3" and first["level"] == "info"
    assert (first["method"], first["path"]) == ("POST", "/v1/chat/completions")
    assert (first["status"], first["model"], first["finish_reason"]) == (200, NAME, "length")
    assert first["prompt_tokens"] == found.usage.prompt_tokens
    assert first["cached_tokens"] == found.usage.prompt_tokens_details.cached_tokens
    assert first["completion_tokens"] == 20
    assert 0 < first["first_token_ms"] <= first["total_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["time"])
    assert (second["status"], second["path"]) == (404, "/v1/models/none")
    assert "secret" not in json.dumps([first, second]) and "model" not in second


def test_a_client_that_has_gone_is_told(server: Running, lines: Any) -> None:
    stream = ask(server, stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    server.wait_until_idle()
    (line,) = lines(1)
    assert line["client_gone"] and line["finish_reason"] == "cancelled"


@pytest.mark.parametrize(
    "given", [b"x" * 65, b"a b", b"a\tb", b'"', b"\xff\xfe", b"a;b", b"\xe2\x80\xae"], ids=repr
)
def test_identifiers_that_are_not_taken(server: Running, given: bytes) -> None:
    found = httpx.get(f"{server.url}/health", headers={b"x-request-id": given})
    assert re.fullmatch(r"req_[0-9a-f]{32}", found.headers["x-request-id"])
    taken = httpx.get(f"{server.url}/health", headers={b"x-request-id": b"x" * 64})
    assert taken.headers["x-request-id"] == "x" * 64


def test_paths_cannot_write_lines_or_command_a_terminal(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, request_log.__name__)
    path = "/a%0a%0dINFO%3a%20root%1b%5b2J%e2%80%ae%7f%22" + "x" * 1000
    assert httpx.get(server.url + path).status_code == 404
    (record,) = records(caplog, 1)
    for formatter in (request_log._JsonFormatter(), request_log._TextFormatter()):
        text = formatter.format(record)
        assert re.fullmatch(r"[ -~]{50,600}", text)


def test_exceptions_are_written_whole(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("first\x1b[2J\nsecond")
    except ValueError:
        logging.getLogger("some").exception("it has failed")
    text = request_log._TextFormatter().format(caplog.records[-1])
    assert "ValueError: first\\x1b[2J" in text and "\x1b" not in text
    document = json.loads(request_log._JsonFormatter().format(caplog.records[-1]))
    assert "second" in document["exception"]
