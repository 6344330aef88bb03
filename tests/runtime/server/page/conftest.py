"""The page in Chromium, on a desktop's screen and a phone's, against a server of a small model.

Each test fails if the browser reports an error, a breach of the page's security policy, or a
request to anywhere but the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.runtime.server.conftest import Running, Serve
from tests.runtime.server.page.link import Link

CHROMIUM = Path("/usr/bin/chromium")
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 780},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}
# What Chromium says of statuses and connections, which the page tells in its own words.
_TOLD_BY_THE_PAGE = "Failed to load resource"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def link(server: Running) -> Iterator[Link]:
    """Between the browser and the server."""
    with Link(port_of(server)) as link:
        yield link


def port_of(server: Running) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


@dataclass
class Visitor:
    """Opens the page, and notes what must not happen there."""

    browser: Any
    port: int
    problems: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)

    def context(self, screen: str, **options: Any) -> Any:
        """A browser's profile of its own, with nothing stored."""
        context = self.browser.new_context(reduced_motion="reduce", **SCREENS[screen], **options)
        context.set_default_timeout(20_000)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(str(error.error)))
        context.on("request", self._request)
        context.on("response", self._response)
        self.contexts.append(context)
        return context

    def open(self, context: Any) -> Any:
        """The page in a new tab, once it is ready."""
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{self.port}/")
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_TOLD_BY_THE_PAGE):
            self.problems.append(message.text)

    def _request(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data") and url.netloc != f"127.0.0.1:{self.port}":
            self.problems.append(f"a request to {request.url}")

    def _response(self, response: Any) -> None:
        if response.status >= 400 and not urlsplit(response.url).path.startswith("/v1/"):
            self.problems.append(f"{response.url}: {response.status}")


@pytest.fixture
def visitor(browser: Any, link: Link) -> Iterator[Visitor]:
    link.come_back()
    visitor = Visitor(browser, link.port)
    yield visitor
    for context in visitor.contexts:
        context.close()
    assert visitor.problems == []


Visit = Callable[..., Any]


@pytest.fixture
def visit_server(browser: Any, serve: Serve) -> Iterator[Visit]:
    """Open the page of another server, by its settings."""
    visitors = []

    def visit(running: Running, screen: str) -> Any:
        visitor = Visitor(browser, port_of(running))
        visitors.append(visitor)
        return visitor.open(visitor.context(screen))

    yield visit
    for visitor in visitors:
        for context in visitor.contexts:
            context.close()
        assert visitor.problems == []


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(visitor: Visitor, screen: str) -> Any:
    return visitor.open(visitor.context(screen))
