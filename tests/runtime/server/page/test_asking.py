"""Asking, streaming, stopping, editing, asking again, copying: on both screens."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.runtime.server.conftest import NAME, Running
from tests.runtime.server.page.actions import (
    QUESTION,
    ask,
    begin,
    choose,
    finish,
    new_conversation,
    open_sidebar,
    set_fields,
    shape,
    text_of,
    titles,
)
from tests.runtime.server.page.conftest import Visitor
from tests.runtime.server.page.link import Link

pytestmark = pytest.mark.chat


def test_an_answer_streams(page: Any, link: Link, server: Running) -> None:
    expected = server.openai().chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=60,
    )
    set_fields(page, max_tokens="60")
    link.is_slow = True
    begin(page)
    part = text_of(page)
    assert page.is_visible("#stop") and not page.is_visible("#send")
    link.is_slow = False
    whole = finish(page)
    assert whole.startswith(part[:10]) and len(part) < len(whole)
    # The page's text is Markdown, drawn; letters and digits are those of the answer.
    letters = re.sub(r"\W+", "", expected.choices[0].message.content or "")
    assert re.sub(r"\W+", "", whole) == letters
    assert shape(page) == ["question", "answer"]


def test_speeds_and_cache_hits_are_shown(page: Any) -> None:
    set_fields(page, max_tokens="40")
    ask(page)
    ask(page, "And that?")
    stats = page.locator(".answer .stats").nth(1).inner_text()
    assert re.search(r"\b40 tokens\b", stats)
    assert re.search(r"first after [\d.]+ s", stats)
    found = re.search(r"(\d+) of (\d+) prompt tokens cached", stats)
    assert found and 0 < int(found[1]) < int(found[2])
    assert "cut at the longest answer" in stats
    assert re.search(r"Context: \d+ of \d+", page.inner_text("#context"))


@pytest.mark.parametrize("by", ["button", "escape"])
def test_an_answer_is_stopped(page: Any, link: Link, server: Running, by: str) -> None:
    set_fields(page, max_tokens="2000")
    link.is_slow = True
    begin(page)
    if by == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    part = finish(page)
    link.is_slow = False
    assert part and "stopped" in page.inner_text(".answer .stats")
    assert page.evaluate("document.activeElement.id") == "question"
    server.wait_until_idle()
    # The part that came belongs to the conversation.
    assert ask(page, "Go on.") and shape(page) == ["question", "answer"] * 2


def test_regenerate(page: Any) -> None:
    set_fields(page, max_tokens="20")
    first = ask(page)
    page.get_by_role("button", name="Regenerate").click()
    assert finish(page) == first
    assert shape(page) == ["question", "answer"]


def test_a_question_is_edited_and_asked_again(page: Any) -> None:
    set_fields(page, max_tokens="5")
    ask(page, "One?")
    ask(page, "Two?")
    page.get_by_role("button", name="Edit and ask again").first.click()
    assert page.input_value("#question") == "One?"
    assert page.is_visible("#editing")
    page.keyboard.press("Escape")
    assert page.is_hidden("#editing") and page.input_value("#question") == ""
    assert shape(page) == ["question", "answer"] * 2
    page.get_by_role("button", name="Edit and ask again").first.click()
    ask(page, "Three?")
    assert shape(page) == ["question", "answer"]
    assert page.inner_text(".question .bubble") == "Three?"
    assert page.is_hidden("#editing")


def test_the_last_question_comes_back_by_arrow_up(page: Any) -> None:
    set_fields(page, max_tokens="5")
    ask(page, "One?")
    page.press("#question", "ArrowUp")
    assert page.input_value("#question") == "One?" and page.is_visible("#editing")


def test_an_answer_is_copied(visitor: Visitor, screen: str) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page = visitor.open(visitor.context(screen, permissions=permissions))
    set_fields(page, max_tokens="10")
    answer = ask(page)
    page.get_by_role("button", name="Copy answer").click()
    page.wait_for_selector("text=Copied.", state="attached")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert re.sub(r"\W+", "", copied) == re.sub(r"\W+", "", answer)


def test_a_line_break(page: Any) -> None:
    set_fields(page, max_tokens="3")
    page.fill("#question", "One")
    page.press("#question", "Shift+Enter")
    page.keyboard.type("Two")
    assert page.input_value("#question") == "One\nTwo" and shape(page) == []
    page.press("#question", "Enter")
    finish(page)
    assert page.inner_text(".question .bubble") == "One\nTwo"


def test_settings_are_sent_and_kept(page: Any) -> None:
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: request.post_data and bodies.append(request.post_data_json))
    set_fields(page, system="Be short.", temperature="0.5", top_p="0.9", max_tokens="7", seed="11")
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    ask(page)
    (body,) = bodies
    assert body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": QUESTION},
    ]
    fields = ("model", "temperature", "top_p", "max_tokens", "seed", "stream")
    assert [body[name] for name in fields] == [NAME, 0.5, 0.9, 7, 11, True]
    first = text_of(page)
    page.get_by_role("button", name="Regenerate").click()
    assert finish(page) == first


def test_a_number_out_of_its_range_is_not_taken(page: Any) -> None:
    open_sidebar(page)
    page.click("#open-settings")
    page.fill("#setting-temperature", "3")
    assert page.inner_text("#setting-temperature-error") == "Expected a number from 0 to 2."
    page.click("#settings button[value=yes]")
    assert page.is_visible("#settings")
    page.keyboard.press("Escape")
    kept = json.loads(page.evaluate("localStorage.getItem('mvlm.settings') ?? '{}'"))
    assert kept.get("temperature", 0) == 0


def test_an_answer_goes_on_while_another_conversation_is_open(page: Any, link: Link) -> None:
    set_fields(page, max_tokens="100")
    link.is_slow = True
    begin(page, "First?")
    new_conversation(page)
    assert shape(page) == [] and page.is_visible("#send")
    link.is_slow = False
    ask(page, "Second?")
    choose(page, "First?")
    assert finish(page)
    assert page.inner_text(".question .bubble") == "First?"
    assert sorted(titles(page)) == ["First?", "Second?"]


def test_conversations_outlast_the_page(page: Any) -> None:
    set_fields(page, max_tokens="10")
    answer = ask(page)
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert shape(page) == []
    choose(page, QUESTION)
    page.wait_for_selector(".answer")
    assert text_of(page) == answer
    ask(page, "And that?")
    assert shape(page) == ["question", "answer"] * 2
