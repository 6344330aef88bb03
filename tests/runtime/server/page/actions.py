"""What a user does on the page, and what is seen then."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

QUESTION = "What is this?"


def picture(width: int = 60, height: int = 40, kind: str = "PNG", **options: Any) -> bytes:
    """An image's file: noise, so that it is not small."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


def upload(name: str, data: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": data}


def add_images(page: Any, *files: dict[str, Any]) -> None:
    before = page.locator("#previews li").count()
    page.set_input_files("#file-input", list(files))
    page.locator("#previews li").nth(before + len(files) - 1).wait_for()


def begin(page: Any, question: str = QUESTION) -> None:
    """Ask, and wait for the answer's first text."""
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector(".answer:last-child .markdown > *")


def ask(page: Any, question: str = QUESTION) -> str:
    """Ask, and return the answer."""
    page.fill("#question", question)
    page.press("#question", "Enter")
    return finish(page)


def finish(page: Any) -> str:
    """Wait for the answer's end, and return it."""
    page.wait_for_selector(".answer:last-child:not(.running) .actions, .answer:last-child .failure")
    page.wait_for_selector("#send:visible")
    return text_of(page)


def text_of(page: Any, number: int = -1) -> str:
    answers = page.locator(".answer .markdown")
    text: str = answers.nth(answers.count() - 1 if number < 0 else number).inner_text()
    return text.strip()


def shape(page: Any) -> list[str]:
    """What the open conversation shows: `question` and `answer`."""
    found: list[str] = page.locator("#messages > li").evaluate_all(
        "items => items.map((item) => item.classList[1])"
    )
    return found


def set_fields(page: Any, **values: str) -> None:
    """Write settings."""
    open_sidebar(page)
    page.click("#open-settings")
    for name, value in values.items():
        page.fill(f"#setting-{name.replace('_', '-')}", value)
    page.click("#settings button[value=yes]")
    page.wait_for_selector("#settings", state="hidden")
    if page.locator("#close-sidebar").is_visible():
        page.click("#close-sidebar")


def open_sidebar(page: Any) -> None:
    """On a phone, open the drawer."""
    button = page.locator("#open-sidebar")
    if button.is_visible() and button.get_attribute("aria-expanded") == "false":
        button.click()


def choose(page: Any, title: str) -> None:
    """Open a kept conversation."""
    open_sidebar(page)
    page.locator(".conversation", has_text=title).first.click()


def new_conversation(page: Any) -> None:
    open_sidebar(page)
    page.click("#new-conversation")


def menu(page: Any, title: str, action: str) -> None:
    """Choose an action of a kept conversation."""
    open_sidebar(page)
    page.get_by_role("button", name=f"More for {title}", exact=True).click()
    page.click(f"#menu-{action}")


def titles(page: Any) -> list[str]:
    found: list[str] = page.locator(".conversation").all_text_contents()
    return found


def exported(*messages: dict[str, Any], title: str = "Imported") -> dict[str, Any]:
    """A file of one conversation."""
    conversation = {"title": title, "named": True, "created": 1, "updated": 2}
    return {
        "format": "mvlm-conversations",
        "version": 1,
        "conversations": [conversation | {"messages": list(messages)}],
    }


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "text": text, "images": []}


def import_file(page: Any, document: Any) -> str:
    """Import a document, and return what the page says of it."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    open_sidebar(page)
    page.click("#open-settings")
    page.set_input_files("#import-input", upload("file.json", data, "application/json"))
    page.wait_for_selector("#settings-note:not([hidden])")
    note: str = page.inner_text("#settings-note")
    page.keyboard.press("Escape")
    page.wait_for_selector("#settings", state="hidden")
    return note
