"""Kept conversations: named, deleted, exported and imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.server.page.actions import (
    QUESTION,
    add_images,
    ask,
    begin,
    choose,
    exported,
    finish,
    import_file,
    menu,
    new_conversation,
    open_sidebar,
    picture,
    said,
    set_fields,
    shape,
    text_of,
    titles,
    upload,
)
from tests.runtime.server.page.link import Link

pytestmark = pytest.mark.chat

_STORED = """
async () => {
  const open = indexedDB.open("mvlm");
  await new Promise((resolve) => (open.onsuccess = resolve));
  const counts = [];
  for (const name of ["conversations", "images"]) {
    const count = open.result.transaction(name).objectStore(name).count();
    await new Promise((resolve) => (count.onsuccess = resolve));
    counts.push(count.result);
  }
  open.result.close();
  return counts;
}
"""


def stored(page: Any) -> list[int]:
    """How many conversations and images the browser keeps."""
    counts: list[int] = page.evaluate(_STORED)
    return counts


def test_a_conversation_is_renamed(page: Any) -> None:
    set_fields(page, max_tokens="2")
    ask(page)
    menu(page, QUESTION, "rename")
    page.fill("#prompt-input", "  Shapes  ")
    page.keyboard.press("Enter")
    page.wait_for_selector(".conversation:text-is('Shapes')")
    assert page.text_content("#title") == "Shapes"
    # Another question does not take the name away.
    if page.locator("#close-sidebar").is_visible():
        page.click("#close-sidebar")
    ask(page, "And that?")
    assert titles(page) == ["Shapes"]


def test_conversations_are_deleted_with_their_images(page: Any) -> None:
    set_fields(page, max_tokens="2")
    for name in ("One?", "Two?", "Three?"):
        new_conversation(page)
        add_images(page, upload("a.png", picture()))
        ask(page, name)
    assert stored(page) == [3, 3]
    menu(page, "Two?", "delete")
    page.click("#confirm [data-closes]")
    page.wait_for_selector("#confirm", state="hidden")
    assert titles(page) == ["Three?", "Two?", "One?"]
    menu(page, "Two?", "delete")
    page.click("#confirm-action")
    page.wait_for_selector(".conversation:text-is('Two?')", state="detached")
    assert titles(page) == ["Three?", "One?"] and stored(page) == [2, 2]
    open_sidebar(page)
    page.click("#open-settings")
    page.click("#delete-all")
    page.click("#confirm-action")
    page.wait_for_selector("#settings-note:text-is('Deleted 2 conversations.')")
    assert stored(page) == [0, 0]
    assert page.locator("#welcome").is_hidden() is False and titles(page) == []


def test_a_conversation_is_deleted_while_it_is_answered(page: Any, link: Link) -> None:
    set_fields(page, max_tokens="500")
    link.is_slow = True
    begin(page)
    menu(page, QUESTION, "delete")
    page.click("#confirm-action")
    page.wait_for_selector(".conversation", state="detached")
    link.is_slow = False
    assert shape(page) == []
    page.wait_for_timeout(300)
    assert stored(page) == [0, 0]


def test_an_image_that_is_shown_no_longer_is_not_kept(page: Any) -> None:
    set_fields(page, max_tokens="2")
    add_images(page, upload("a.png", picture()), upload("b.png", picture()))
    ask(page)
    assert stored(page) == [1, 2]
    page.get_by_role("button", name="Edit and ask again").click()
    page.get_by_role("button", name="Remove a.png").click()
    ask(page, "And now?")
    assert stored(page) == [1, 1]


def test_an_export_is_imported_again(page: Any, tmp_path: Path) -> None:
    set_fields(page, max_tokens="5")
    add_images(page, upload("a.png", picture()))
    answer = ask(page, "Für wen? 🎨")
    ask(page, "And that?")
    new_conversation(page)
    ask(page, "Other?")
    open_sidebar(page)
    page.click("#open-settings")
    with page.expect_download() as download:
        page.click("#export-all")
    file = tmp_path / "all.json"
    download.value.save_as(file)
    assert download.value.suggested_filename == "mvlm-conversations.json"
    page.click("#delete-all")
    page.click("#confirm-action")
    page.wait_for_selector("#settings-note:text-is('Deleted 2 conversations.')")
    page.set_input_files("#import-input", file)
    page.wait_for_selector("#settings-note:text-is('Imported 2 conversations.')")
    page.keyboard.press("Escape")
    assert titles(page) == ["Other?", "Für wen? 🎨"]
    choose(page, "Für wen?")
    page.wait_for_selector(".question img[src^='blob:']")
    assert shape(page) == ["question", "answer"] * 2 and text_of(page, 0) == answer
    assert "prompt tokens" in page.locator(".answer .stats").first.inner_text()
    with page.expect_download() as download:
        menu(page, "Für wen? 🎨", "export")
    assert download.value.suggested_filename == "Für-wen.json"
    one = json.loads(Path(download.value.path()).read_text())
    (before,) = [
        each for each in json.loads(file.read_text())["conversations"] if "F" in each["title"]
    ]
    assert one["conversations"] == [before]


def test_an_imported_conversation_goes_on(page: Any) -> None:
    set_fields(page, max_tokens="5")
    document = exported(said("user", "One?"), said("assistant", "Yes."))
    assert import_file(page, document) == "Imported 1 conversation."
    choose(page, "Imported")
    page.wait_for_selector(".answer")
    ask(page, "And two?")
    assert shape(page) == ["question", "answer"] * 2
    finish(page)


_GOOD = exported(said("user", "One?"), said("assistant", "Yes."))


def _with(**changes: Any) -> dict[str, Any]:
    (conversation,) = _GOOD["conversations"]
    return {**_GOOD, "conversations": [conversation, {**conversation, **changes}]}


def _image(data: str) -> dict[str, Any]:
    message = said("user", "One?") | {"images": [{"name": "a", "data": data}]}
    return _with(messages=[message])


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "The file is no JSON."),
        (b"[" * 100_000, "The file is no JSON."),
        (b"null", "The file is no export"),
        ({"format": "other"}, "The file is no export"),
        ({**_GOOD, "version": 2}, "version 2, not 1"),
        ({**_GOOD, "conversations": 5}, "conversations: expected a list."),
        (_with(title=5), "conversations[1].title: expected a text."),
        (_with(title="x" * 201), "conversations[1].title: expected at most 200 characters."),
        (_with(updated="now"), "conversations[1].updated: expected milliseconds"),
        (_with(messages=None), "conversations[1].messages: expected a list."),
        (_with(messages=[None]), "conversations[1].messages[0].role: expected user or"),
        (_with(messages=[said("system", "x")]), "messages[0].role: expected user or assistant."),
        (_with(messages=[{"role": "user", "images": []}]), "messages[0].text: expected a text."),
        (_image("https://evil.example/a.png"), "images[0].data: expected a JPEG, PNG or WebP"),
        (_image("data:image/svg+xml;base64,PHN2Zz4="), "images[0].data: expected a JPEG, PNG"),
        (_image("data:text/html;base64,PHN2Zz4="), "images[0].data: expected a JPEG, PNG"),
        (_image("data:image/png;base64,aGVsbG8="), "images[0].data: the image is damaged."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_is_wrong(page: Any, document: Any, message: str) -> None:
    note = import_file(page, document)
    assert note.startswith("Nothing was imported.") and message in note
    assert stored(page) == [0, 0]
