"""What the page says when the server refuses, has failed, or is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.runtime.server.conftest import Running, Serve
from tests.runtime.server.page.actions import (
    QUESTION,
    ask,
    begin,
    finish,
    set_fields,
    shape,
    text_of,
)
from tests.runtime.server.page.conftest import Visit
from tests.runtime.server.page.link import Link

pytestmark = pytest.mark.chat

CHAT = "**/v1/chat/completions"


def failed(page: Any) -> str:
    """Wait for a failed answer, and return what the page says."""
    page.wait_for_selector(".failure")
    text: str = page.inner_text(".failure p")
    return text


def send(page: Any, question: str = QUESTION) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")


@pytest.mark.parametrize(
    ("status", "body", "headers", "message"),
    [
        (429, {"error": {"message": "busy"}}, {"Retry-After": "1"}, "Try again in a moment."),
        (429, {"error": {"message": "busy"}}, {"Retry-After": "20"}, "again in 20 seconds."),
        (
            503,
            {"error": {"message": "stopping"}},
            {},
            "The server cannot answer now (stopping). Try",
        ),
        (504, {"error": {"code": "timeout"}}, {}, "took longer than the server allows"),
        (413, {"error": {"message": "too long"}}, {}, "The images are too large"),
        (404, {"error": {"code": "model_not_found"}}, {}, "The server has no such model."),
        (400, {"error": {"message": "stop: no"}}, {}, "The server refused: stop: no"),
        (500, {"error": {"message": "x"}}, {}, "The server has failed (status 500)."),
        (502, "<h1>Bad gateway</h1>", {}, "The server has failed (status 502)."),
        (200, "data: {broken\n\n", {}, "The connection ended before the answer did."),
        (200, "", {}, "The connection ended before the answer did."),
        (
            200,
            'data: {"error": {"message": "too long", "code": "timeout"}}\n\n',
            {},
            "took longer than the server allows",
        ),
    ],
    ids=str,
)
def test_a_refusal_in_words(
    page: Any, status: int, body: Any, headers: dict[str, str], message: str
) -> None:
    set_fields(page, max_tokens="5")
    text = body if isinstance(body, str) else json.dumps(body)
    page.route(CHAT, lambda route: route.fulfill(status=status, body=text, headers=headers))
    send(page)
    assert message in failed(page)
    page.unroute(CHAT)
    page.get_by_role("button", name="Try again").click()
    assert finish(page) and page.locator(".failure").count() == 0
    assert shape(page) == ["question", "answer"]


def test_a_conversation_that_is_longer_than_the_context(page: Any) -> None:
    send(page, "word " * 4000)
    assert "longer than the model's context" in failed(page)
    page.locator(".failure").get_by_role("button", name="New conversation").click()
    assert shape(page) == [] and page.is_visible("#welcome")


def test_the_server_goes_away_within_an_answer(page: Any, link: Link) -> None:
    set_fields(page, max_tokens="200")
    link.is_slow = True
    begin(page)
    link.go_down()
    assert failed(page) == "The connection ended before the answer did."
    assert text_of(page)
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".failure:has-text('cannot be reached')")
    link.come_back()
    page.get_by_role("button", name="Try again").click()
    assert finish(page) and page.locator(".failure").count() == 0


def test_the_server_is_not_there_at_first(page: Any, link: Link) -> None:
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#banner:not([hidden])")
    assert "The server cannot be reached." in page.inner_text("#banner")
    assert page.text_content("#model-name") == "no model"
    page.unroute("**/v1/models")
    page.click("#banner-action")
    page.wait_for_selector("#banner", state="hidden")
    set_fields(page, max_tokens="3")
    assert ask(page) is not None and shape(page) == ["question", "answer"]


@pytest.fixture(scope="module")
def locked(serve: Serve) -> Any:
    """A server that wants a key."""
    with serve(api_keys=("right",)) as running:
        yield running


def test_a_key_is_asked_for(visit_server: Visit, locked: Running, screen: str) -> None:
    page = visit_server(locked, screen)
    page.wait_for_selector("#settings[open]")
    assert page.evaluate("document.activeElement.id") == "setting-key"
    assert "The server asks for a key." in page.inner_text("#key-state")
    page.fill("#setting-key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-state:text('The server does not take this key.')")
    page.fill("#setting-key", "right")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-state:text('The server takes this key.')")
    page.fill("#setting-max-tokens", "5")
    page.click("#settings button[value=yes]")
    ask(page)
    # It outlasts a reload, and is forgotten with the tab.
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.is_hidden("#settings") and page.is_hidden("#banner")
    assert "right" not in page.evaluate("JSON.stringify({ ...localStorage })")
    assert "right" in page.evaluate("JSON.stringify({ ...sessionStorage })")


def test_a_key_that_is_no_longer_taken(visit_server: Visit, locked: Running, screen: str) -> None:
    page = visit_server(locked, screen)
    page.fill("#setting-key", "wrong")
    page.click("#settings button[value=yes]")
    page.wait_for_selector("#banner:not([hidden])")
    send(page)
    assert failed(page) == "The server asks for a valid key."
    page.locator(".failure").get_by_role("button", name="Enter a key").click()
    page.fill("#setting-key", "right")
    page.fill("#setting-max-tokens", "5")
    page.click("#settings button[value=yes]")
    page.wait_for_selector("#banner", state="hidden")
    page.locator(".failure").get_by_role("button", name="Try again").click()
    assert finish(page) and page.locator(".failure").count() == 0


def test_more_answers_than_the_server_takes(visit_server: Visit, serve: Serve, screen: str) -> None:
    with serve(max_answers=0) as running:
        page = visit_server(running, screen)
        send(page)
        assert "as many questions as it takes. Try again in a moment." in failed(page)
