"""The public names of docs/python.md exist, and its examples run as they are written."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.artifacts import ArtifactCache

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
NAMES = re.findall(r"^\| `(mvlm\.[\w.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
*RUN, COMPILE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_names_what_is_public() -> None:
    assert len(NAMES) == len(set(NAMES)) > 10


@pytest.mark.parametrize("name", NAMES)
def test_public_names_exist_and_are_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert (found.__doc__ or "").strip()


@pytest.mark.parametrize("example", range(len(RUN)))
def test_the_examples_that_run_an_artifact(
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    example: int,
) -> None:
    (tmp_path / "artifact").symlink_to(artifact_cache.artifact("ldpnet"))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(RUN[example], str(PAGE), "exec"), {"__name__": "example"})
    said = capsys.readouterr().out
    assert said.strip()
    if "usage" in RUN[example]:
        assert "Usage(prompt_tokens=" in said
    if "Constraint" in RUN[example]:
        assert set(said.split()) <= {"yes", "no"} and len(said.split()) == 8


@pytest.mark.extended
def test_the_example_that_compiles(
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "checkpoint").symlink_to(artifact_cache.checkpoint("text"))
    monkeypatch.chdir(tmp_path)
    exec(compile(COMPILE, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == "host\n"
    assert (tmp_path / "artifact" / "manifest.json").is_file()
