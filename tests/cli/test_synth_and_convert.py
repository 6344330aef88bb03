"""`mvlm synth` and `mvlm convert`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.models import family
from mvlm.models.config import read_config
from tests.artifacts import Shelf
from tests.cli.command_line import mvlm
from tests.models.test_release import SMALL


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of the family that takes no gigabytes."""
    monkeypatch.setitem(family.FAMILY, SMALL.name, SMALL)
    return SMALL.name


def test_synth_writes_a_checkpoint(small: str, tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    result = mvlm("synth", small, "-o", place, "--seed", "5", "--layers", "1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    size = sum(file.stat().st_size for file in place.iterdir())
    assert result.json == {"checkpoint": str(place), "name": small, "seed": 5, "bytes": size}
    assert read_config(place).language.num_hidden_layers == 1
    assert (place / "pytorch_model.bin").is_file()


def test_synth_leaves_what_is_there_alone(small: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = mvlm("synth", small, "-o", tmp_path)
    assert result.exit_code == 2 and "is in the way" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("LLaVA",), "unknown model: expected MobileLLaMA-1.4B"),
        (("small", "--format", "npz"), "unknown format: expected bin or safetensors"),
        (("clip-vit-large-patch14-336", "--layers", "2"), "--layers is for a decoder"),
        (("small", "--layers", "0"), "--layers"),
    ],
)
def test_synth_refuses(small: str, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = mvlm("synth", *arguments, "-o", tmp_path / "place")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("mlc", {"mlc-chat-config.json", "tensor-cache.json", "params_shard_0.bin"}),
        ("gguf", {"model-f16.gguf"}),
    ],
)
def test_convert_writes_a_folder(shelf: Shelf, tmp_path: Path, to: str, files: set[str]) -> None:
    result = mvlm("convert", shelf.checkpoint("text"), "--to", to, "-o", tmp_path / "out", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert files <= set(result.json["files"])
    assert result.json["format"] == to
    assert result.json["bytes"] == sum(
        (tmp_path / "out" / name).stat().st_size for name in result.json["files"]
    )


@pytest.mark.parametrize(
    ("family_name", "options", "exit_code", "words"),
    [
        ("text", ("--to", "onyx"), 2, "unknown format: expected mlc or gguf or onnx"),
        ("text", ("--to", "onnx"), 2, "has no vision tower"),
        ("text", ("--to", "gguf", "--type", "q3_k"), 2, "unknown type"),
        ("text", ("--to", "mlc", "--lora", "nowhere"), 2, "is not the folder of an adapter"),
        ("ldpnet", ("--to", "gguf"), 1, "llama.cpp's projector is written for 24x24 patches"),
    ],
)
def test_convert_refuses(
    shelf: Shelf,
    tmp_path: Path,
    family_name: str,
    options: tuple[str, ...],
    exit_code: int,
    words: str,
) -> None:
    checkpoint = shelf.checkpoint(family_name)
    result = mvlm("convert", checkpoint, *options, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_chat_takes_a_folder_in_mlcs_format(
    shelf: Shelf, tmp_path: Path, empty_cache: Path
) -> None:
    mvlm("convert", shelf.checkpoint("text"), "--to", "mlc", "-o", tmp_path / "mlc")
    asked = ("--prompt", "Hello", "--max-tokens", "3", "--json", "--quant", "q4f16_1")
    answers = [
        mvlm("chat", place, *asked).json["token_ids"]
        for place in (shelf.checkpoint("text"), tmp_path / "mlc")
    ]
    assert len(answers[0]) == 3
    assert answers[0] == answers[1]
