"""The preview of an image on a terminal, and where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

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
