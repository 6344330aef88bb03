"""Keyboard, screen reader, contrast, narrow screens: by axe-core, and by what must hold besides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.runtime.server.page.actions import (
    QUESTION,
    add_images,
    ask,
    begin,
    choose,
    exported,
    import_file,
    open_sidebar,
    picture,
    said,
    set_fields,
    shape,
    upload,
)
from tests.runtime.server.page.conftest import Visitor
from tests.runtime.server.page.link import Link
from tests.runtime.server.page.test_markdown import SHAPES

pytestmark = pytest.mark.chat

_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def check(page: Any, state: str) -> None:
    """No violations of axe-core's rules, of any weight."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    results = axe.Axe().run(page, options=_RULES)
    found = [
        f"{state}: {each['id']} ({each['impact']}): {node['html'][:120]}: {node['failureSummary']}"
        for each in results.response["violations"]
        for node in each["nodes"]
    ]
    assert found == []
    assert len(results.response["passes"]) > 15


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state_by_axe(visitor: Visitor, screen: str, theme: str, link: Link) -> None:
    # axe-core runs as a script that the page's policy knows nothing of.
    page = visitor.open(visitor.context(screen, color_scheme=theme, bypass_csp=True))
    check(page, "first view")
    add_images(page, upload("a.png", picture()))
    page.fill("#question", QUESTION)
    check(page, "a question with an image")
    set_fields(page, max_tokens="2000")
    link.is_slow = True
    begin(page)
    check(page, "an answer that streams")
    page.click("#stop")
    link.is_slow = False
    page.wait_for_selector(".answer .stats li")
    check(page, "an answer")
    page.get_by_role("button", name="Edit and ask again").click()
    check(page, "editing")
    page.keyboard.press("Escape")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    page.wait_for_selector(".failure")
    check(page, "a failure")
    import_file(page, exported(said("user", "One?"), said("assistant", SHAPES)))
    choose(page, "Imported")
    page.wait_for_selector(".answer table")
    check(page, "Markdown")
    open_sidebar(page)
    check(page, "conversations")
    page.get_by_role("button", name="More for Imported").click()
    check(page, "the menu of a conversation")
    page.click("#menu-rename")
    check(page, "renaming")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="More for Imported").click()
    page.click("#menu-delete")
    check(page, "deleting")
    page.keyboard.press("Escape")
    page.click("#open-settings")
    page.fill("#setting-temperature", "9")
    check(page, "settings")


def test_the_theme_is_chosen(page: Any) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    open_sidebar(page)
    page.click("#open-settings")
    page.check("#theme-dark", force=True)
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate(ground) == dark
    page.emulate_media(color_scheme="dark")
    open_sidebar(page)
    page.click("#open-settings")
    page.check("#theme-light", force=True)
    assert page.evaluate(ground) == light
    page.check("#theme-system", force=True)
    assert page.evaluate(ground) == dark


def focused(page: Any) -> str:
    """The name of what has the focus."""
    name: str = page.evaluate(
        "() => { const e = document.activeElement;"
        " return e.getAttribute('aria-label') ?? e.id ?? e.textContent.trim(); }"
    )
    return name


def back_to(page: Any, name: str) -> None:
    """Go back by Shift+Tab."""
    seen = []
    while name not in seen:
        page.keyboard.press("Shift+Tab")
        seen.append(focused(page))
        assert len(seen) < 40, seen


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_everything_by_keyboard(page: Any) -> None:
    keys = page.keyboard
    set_fields(page, max_tokens="5")
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert focused(page) == "question"
    keys.type("One?")
    keys.press("Enter")
    page.wait_for_selector(".answer .stats li")
    assert focused(page) == "question"
    # The skip link comes first, and leads to the question.
    back_to(page, "skip")
    assert page.locator("#skip").bounding_box()["y"] >= 0
    keys.press("Enter")
    assert focused(page) == "question"
    keys.press("Control+Shift+O")
    assert shape(page) == [] and focused(page) == "question"
    # From the question back to the list: rename a conversation.
    back_to(page, "More for One?")
    keys.press("Enter")
    assert focused(page) == "menu-rename"
    keys.press("Escape")
    assert focused(page) == "More for One?"
    keys.press("Enter")
    keys.press("Enter")
    assert focused(page) == "prompt-input"
    keys.type("Named")
    keys.press("Enter")
    page.wait_for_selector(".conversation:text-is('Named')")
    assert focused(page) == "More for Named"
    keys.press("Shift+Tab")
    keys.press("Enter")
    page.wait_for_selector(".answer")
    assert shape(page) == ["question", "answer"]
    # Delete it.
    page.get_by_role("button", name="More for Named").focus()
    keys.press("Enter")
    keys.press("Tab")
    keys.press("Tab")
    assert focused(page) == "menu-delete"
    keys.press("Enter")
    keys.press("Tab")
    assert focused(page) == "confirm-action"
    keys.press("Enter")
    page.wait_for_selector(".conversation", state="detached")
    page.wait_for_selector("#new-conversation:focus")


def test_a_screen_reader_hears_the_answer(page: Any) -> None:
    events = [
        {"choices": [{"delta": {"content": text}, "finish_reason": None}]}
        for text in ("A red", " circle. ", "Two blue", " stars.")
    ]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body))
    ask(page)
    log = page.get_by_role("log", name="Announcements")
    assert log.get_attribute("aria-live") == "polite"
    heard = log.locator("p").all_text_contents()
    assert heard == ["Answering.", "A red circle.", "Two blue stars.", "The answer is complete."]
    names = [each.get_attribute("aria-label") for each in page.get_by_role("button").all()]
    assert "Copy answer" in names and "Regenerate" in names


def test_headings_and_landmarks(page: Any) -> None:
    set_fields(page, max_tokens="3")
    ask(page)
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == QUESTION
    headings = page.locator("#messages").get_by_role("heading", level=2).all_text_contents()
    assert headings == ["You", "Answer"]
    assert page.title() == f"{QUESTION} \u2013 mvlm"


@pytest.mark.parametrize("width", [320, 390, 760, 761, 1600])
def test_nothing_is_wider_than_the_screen(visitor: Visitor, width: int) -> None:
    page = visitor.open(visitor.context("desktop"))
    page.set_viewport_size({"width": width, "height": 640})
    long = "unbroken" * 60
    import_file(
        page, exported(said("user", long), said("assistant", SHAPES + long), title=long[:200])
    )
    choose(page, long[:20])
    page.wait_for_selector(".answer table")
    inside = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(inside)
    assert page.locator("#thread").evaluate("(each) => each.scrollWidth <= each.clientWidth")
    right = page.locator("#composer").bounding_box()
    assert right["x"] >= 0 and right["x"] + right["width"] <= width


@pytest.mark.parametrize("screen", ["phone"], indirect=True)
def test_the_drawer_of_a_phone(page: Any) -> None:
    assert page.is_hidden("#new-conversation")
    page.click("#open-sidebar")
    assert page.is_visible("#new-conversation") and focused(page) == "Close conversations"
    assert page.evaluate("document.getElementById('main').inert")
    page.keyboard.press("Escape")
    assert page.is_hidden("#new-conversation") and focused(page) == "Conversations"
    page.click("#open-sidebar")
    page.mouse.click(380, 400)
    assert page.is_hidden("#new-conversation")


def test_reduced_motion(visitor: Visitor, link: Link, screen: str) -> None:
    page = visitor.open(visitor.context(screen))
    durations = page.evaluate(
        "Array.from(document.querySelectorAll('*'), (e) => "
        "parseFloat(getComputedStyle(e).transitionDuration))"
    )
    assert durations and max(durations) == 0


def test_the_page_can_be_installed(page: Any) -> None:
    session = page.context.new_cdp_session(page)
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == [] and manifest["url"].endswith("/page/manifest.webmanifest")
    errors = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # A profile without history installs nothing.
    assert [each["errorId"] for each in errors if each["errorId"] != "in-incognito"] == []
