"""`mvlm demo`, with a random model in the bundled one's place: quick, and just as talkative."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mvlm.cli import demo
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm

SPEEDS = ("vision", "prefill", "decode", "peak RSS")


@pytest.fixture(autouse=True)
def random_model(artifact_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = artifact_cache.artifact("ldpnet")
    monkeypatch.setattr(demo, "find_artifact", lambda *_, **__: artifact)


def test_demo_prints_image_question_and_speeds() -> None:
    result = mvlm("demo")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    image = Path(lines[0].removeprefix("image").strip())
    assert image.name == "demo.png" and image.is_file()
    assert lines[1] == "question  Describe the picture."
    assert lines[2].startswith("answer    ")
    assert all(any(line.startswith(name) for line in lines) for name in SPEEDS)
    assert "\u2580" not in result.stdout


def test_demo_with_image_and_prompt(tmp_path: Path) -> None:
    image = tmp_path / "mine.jpg"
    Image.new("RGB", (90, 30), "green").save(image)
    result = mvlm("demo", "--image", image, "--prompt", "What colour?", "--json")
    assert result.exit_code == 0
    assert (result.json["image"], result.json["prompt"]) == (str(image), "What colour?")
    assert {"text", "token_ids", "finish_reason", "usage", "stats"} <= result.json.keys()


def test_demo_refuses_a_file_that_is_no_image(tmp_path: Path) -> None:
    result = mvlm("demo", "--image", tmp_path / "none.png")
    assert (result.exit_code, result.stdout) == (1, "")
