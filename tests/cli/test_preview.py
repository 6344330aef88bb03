"""The preview of an image on a terminal, and where there is none."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from mvlm.cli.shared.inline_images import inline_encoder, iterm2, kitty
from mvlm.cli.shared.preview import show_preview

HALF_BLOCK = "\u2580"


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    """Red above blue, twice as wide as high."""
    path = tmp_path / "two.png"
    image = Image.new("RGB", (80, 40), (255, 0, 0))
    image.paste((0, 0, 255), (0, 20, 80, 40))
    image.save(path)
    return path


def _shown(
    image_file: Path, capsys: pytest.CaptureFixture[str], terminal: bool, **environment: str
) -> str:
    with (
        mock.patch.dict("os.environ", environment | {"COLUMNS": "80"}, clear=True),
        mock.patch.object(sys.stdout, "isatty", lambda: terminal),
    ):
        show_preview(image_file)
    return capsys.readouterr().out


def test_preview_draws_two_pixels_a_cell(
    image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = _shown(image_file, capsys, True, TERM="xterm", COLORTERM="truecolor")
    rows = drawn.splitlines()
    assert len(rows) == 11
    assert all(row.count(HALF_BLOCK) == 44 for row in rows)
    assert "38;2;255;0;0;48;2;255;0;0" in rows[0]
    assert "38;2;0;0;255;48;2;0;0;255" in rows[-1]


def test_preview_with_256_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "green.png"  # rich remembers how it wrote a style, in whatever colours
    Image.new("RGB", (8, 8), (10, 200, 30)).save(path)
    drawn = _shown(path, capsys, True, TERM="xterm-256color")
    assert HALF_BLOCK in drawn and "38;5;" in drawn and "38;2;" not in drawn


@pytest.mark.parametrize(
    ("terminal", "environment"),
    [
        (False, {"TERM": "xterm", "COLORTERM": "truecolor"}),
        (True, {"TERM": "dumb"}),
        (True, {"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}),
    ],
)
def test_no_preview_without_a_colour_terminal(
    image_file: Path,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    environment: dict[str, str],
) -> None:
    assert _shown(image_file, capsys, terminal, **environment) == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_preview_of_any_aspect_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int]
) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", size, "white").save(path)
    drawn = _shown(path, capsys, True, TERM="xterm", COLORTERM="truecolor")
    assert 1 <= drawn.count("\n") <= 16


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, kitty),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, kitty),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, iterm2),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1", "TMUX": "x"}, None),
        ({"TERM": "xterm-kitty", "MVLM_PREVIEW": "blocks"}, None),
        ({"TERM": "xterm-256color", "MVLM_PREVIEW": "iterm2"}, iterm2),
        ({"TERM": "xterm-256color"}, None),
    ],
)
def test_terminals_with_pixels_are_known(environment: dict[str, str], expected: object) -> None:
    assert inline_encoder(environment) is expected


def test_preview_by_the_terminals_own_pixels(
    image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = _shown(image_file, capsys, True, TERM="xterm-kitty")
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn)
    assert chunks[0][0] == f"a=T,f=100,q=2,c=8,r=2,m={int(len(chunks) > 1)}"
    shown = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in chunks))))
    assert shown.size == (80, 40) and shown.getpixel((0, 0)) == (255, 0, 0)
    drawn = _shown(image_file, capsys, True, TERM="xterm", TERM_PROGRAM="iTerm.app")
    assert re.fullmatch(r"\x1b\]1337;File=inline=1;size=\d+;width=8;height=2;.*\x07\n", drawn)
    assert _shown(image_file, capsys, True, TERM="xterm-kitty", MVLM_PREVIEW="off") == ""
    long = kitty(bytes(10_000), 1, 1)
    assert long.count("m=1;") == 3 and long.count("m=0;") == 1
