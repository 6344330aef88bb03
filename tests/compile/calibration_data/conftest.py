"""Files of calibration data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of a text, of bytes, or of JSON entries."""

    def write_file(name: str, content: object) -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif path.suffix == ".jsonl":
            assert isinstance(content, list)
            path.write_text("".join(json.dumps(item) + "\n" for item in content))
        else:
            path.write_text(json.dumps(content))
        return path

    return write_file


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one image."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    return folder
