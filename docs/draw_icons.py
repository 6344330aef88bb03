"""Draws the page's icons for installing it: `python docs/draw_icons.py` writes the PNG files."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import sync_playwright

PAGE = Path(__file__).parent.parent / "runtime" / "server" / "page"
# A maskable icon's outer tenth may be cut off: the ground fills the square, and the drawing is
# smaller (https://www.w3.org/TR/appmanifest/#icon-masks).
_ICONS = {
    "icon-192.png": (192, 1.0),
    "icon-512.png": (512, 1.0),
    "icon-maskable-512.png": (512, 0.8),
}
_GROUND = "#0f5f5c"


def main() -> None:
    """Draw `icon.svg` in each size, by Debian's Chromium."""
    svg = (PAGE / "icon.svg").read_text()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for name, (size, scale) in _ICONS.items():
            page = browser.new_page(viewport={"width": size, "height": size})
            ground = _GROUND if scale < 1 else "transparent"
            style = f"margin:0;background:{ground};display:grid;place-items:center;height:{size}px"
            side = round(size * scale)
            drawn = svg.replace("<svg ", f'<svg width="{side}" height="{side}" ', 1)
            page.set_content(f'<body style="{style}">{drawn}</body>')
            page.screenshot(path=PAGE / name, omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
