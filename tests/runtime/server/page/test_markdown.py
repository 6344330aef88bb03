"""Markdown: what it looks like, and that text of a model does nothing but be read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.runtime.server.page.actions import (
    choose,
    exported,
    finish,
    import_file,
    said,
    text_of,
)

pytestmark = pytest.mark.chat

SHAPES = """# One

Some **bold**, *slanted*, ~~struck~~ and `code` &amp; more.
A [link](https://example.org/a?b=c) and <mailto:someone@example.org>.

- a
- b
  1. c
- [x] done

> quoted

```python
print("<b>")
```

| left | right |
|:-----|------:|
| 1    | 2     |

---

![a cat](https://example.org/cat.png)
"""

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "text <svg onload=window.hacked=1> text",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<style>body { display: none }</style>",
    "<a href='javascript:window.hacked=1'>x</a>",
    "[x](javascript:window.hacked=1)",
    "[x](JaVaScRiPt:window.hacked=1)",
    "[x](java&#115;cript:window.hacked=1)",
    "[x](\x01javascript:window.hacked=1)",
    "[x](data:text/html,<script>window.hacked=1</script>)",
    "[x](vbscript:window.hacked=1) [y](file:///etc/passwd) [z](//example.org) [w](/v1/models)",
    "![x](javascript:window.hacked=1)",
    "![x](https://example.org/track.png)",
    "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    "[x][a]\n\n[a]: javascript:window.hacked=1",
    "<javascript:window.hacked=1>",
    '[x](https://example.org" onmouseover="window.hacked=1)',
    "```html\n<script>window.hacked = 1</script>\n```",
    "[constructor](https://example.org) __proto__ toString",
    ">" * 3000 + " deep",
    "> " * 1500 + "deep",
    "- " * 500 + "deep",
    "*a **b " * 1500,
    "[" * 5000,
    "[a](" * 3000,
    "`" * 5000 + "a",
    "|a" * 500 + "\n" + "|-" * 500,
    "word " * 60_000,
    "\u202egnp.exe \0 \ud83d",
]

ALLOWED = {
    *("P", "H3", "H4", "H5", "H6", "STRONG", "EM", "DEL", "CODE", "PRE", "UL", "OL", "LI", "HR"),
    *("BLOCKQUOTE", "BR", "A", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "DIV", "INPUT"),
}

_ELEMENTS = """
(root) => Array.from(root.querySelectorAll("*"), (each) => [
  each.tagName,
  Object.fromEntries(Array.from(each.attributes, ({ name, value }) => [name, value])),
])
"""


def elements(page: Any) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = page.locator(".answer .markdown").evaluate(_ELEMENTS)
    return found


def show(page: Any, text: str) -> None:
    import_file(page, exported(said("user", "One?"), said("assistant", text)))
    choose(page, "Imported")
    page.wait_for_selector(".answer")


def test_markdown_is_drawn(page: Any) -> None:
    show(page, SHAPES)
    tags = [tag for tag, _ in elements(page)]
    assert set(tags) == ALLOWED - {"H4", "H5", "H6"}
    links = [attributes for tag, attributes in elements(page) if tag == "A"]
    assert [link["href"] for link in links] == [
        "https://example.org/a?b=c",
        "mailto:someone@example.org",
        "https://example.org/cat.png",
    ]
    assert {(link["rel"], link["target"]) for link in links} == {("noopener noreferrer", "_blank")}
    assert page.inner_text(".answer pre") == 'print("<b>")'
    assert "code & more" in text_of(page) and "image: a cat" in text_of(page)


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_untrusted_markdown_is_harmless(page: Any, text: str) -> None:
    show(page, text)
    for tag, attributes in elements(page):
        assert tag in ALLOWED
        allowed = {"href", "target", "rel", "class", "start", "tabindex", "role", "aria-label"}
        assert set(attributes) <= allowed | {"type", "disabled", "checked"}
        assert re.match(r"https?://|mailto:|$", attributes.get("href", ""))
    assert page.evaluate("window.hacked") is None
    assert page.is_visible("#question")


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_untrusted_markdown_is_harmless_while_it_streams(page: Any) -> None:
    """In pieces that end within tags, links and fences."""
    text = "\n\n".join(HOSTILE[:20])
    events = []
    for at in range(0, len(text), 7):
        choice = {"index": 0, "delta": {"content": text[at : at + 7]}, "finish_reason": None}
        events.append(f"data: {json.dumps({'choices': [choice]})}\n\n")
    events.append('data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
    headers = {"content-type": "text/event-stream"}
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body="".join(events), headers=headers),
    )
    page.fill("#question", "One?")
    page.press("#question", "Enter")
    finish(page)
    found = elements(page)
    assert found and {tag for tag, _ in found} <= ALLOWED
    assert "<script>window.hacked = 1</script>" in text_of(page)
    assert page.evaluate("window.hacked") is None
