"""Takes the screenshots of the page: `python docs/record_page.py` writes docs/images/page-*.png.

The bundled model answers, in Debian's Chromium; needs the extra `chat`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "models" / "bundled"
_DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 780}}
_PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 780},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
_SHOTS = (
    ("page-light", _DESKTOP, "light"),
    ("page-dark", _DESKTOP, "dark"),
    ("page-phone", _PHONE, "light"),
)
# Conversations: an image, and questions about it. The last one is shown.
_TALKS = (
    ("outlines.png", ("What do you see?",)),
    ("wide.png", ("How many circles are there?",)),
    ("demo.png", ("Describe the picture.", "What is to the right of the circle?")),
)


def main() -> None:
    """Serve the bundled model, talk with it, and take the screenshots."""
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    with _server() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for name, screen, theme in _SHOTS:
            page = browser.new_page(**screen, color_scheme=theme, reduced_motion="reduce")
            page.goto(url)
            page.wait_for_selector("html[data-ready]", state="attached")
            for image, questions in _TALKS:
                _talk(page, image, questions)
            page.screenshot(path=ROOT / "docs" / "images" / f"{name}.png")
            page.close()
        browser.close()


def _talk(page: Any, image: str, questions: tuple[str, ...]) -> None:
    page.keyboard.press("Control+Shift+O")
    page.set_input_files("#file-input", BUNDLED / "images" / image)
    page.wait_for_selector("#previews li")
    for number, question in enumerate(questions, 1):
        page.fill("#question", question)
        page.press("#question", "Enter")
        page.wait_for_selector(f".answer >> nth={number - 1} >> .stats li >> nth=0")
    page.wait_for_selector(".question img[src^='blob:']")


@contextmanager
def _server() -> Iterator[str]:
    """Serve the bundled model on a port of its own."""
    command = [sys.executable, "-m", "mvlm.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, BUNDLED / "mobilevlm-shapes"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r"http://\S+", line):
                yield match[0]
                break
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
