"""`mvlm synth` and `mvlm convert`."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvlm.models import model_zoo
from mvlm.models.config.read import read_config
from mvlm.runtime.artifact.staging import atomic_directory
from tests.artifacts import ArtifactCache
from tests.cli.command_line import Result, mvlm
from tests.models.test_synthetic import SMALL


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of the family that takes no gigabytes."""
    monkeypatch.setitem(model_zoo.PUBLISHED_MODELS, SMALL.name, SMALL)
    return SMALL.name


def test_synth_writes_a_checkpoint(small: str, tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    result = mvlm("synth", small, "-o", place, "--seed", "5", "--layers", "1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    size = sum(file.stat().st_size for file in place.iterdir())
    assert result.json == {"checkpoint": str(place), "name": small, "seed": 5, "bytes": size}
    assert read_config(place).language.num_hidden_layers == 1
    assert (place / "pytorch_model.bin").is_file()


def test_synth_keeps_existing_files(small: str, tmp_path: Path) -> None:
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
def test_convert_writes_a_folder(
    artifact_cache: ArtifactCache, tmp_path: Path, to: str, files: set[str]
) -> None:
    result = mvlm(
        "convert", artifact_cache.checkpoint("text"), "--to", to, "-o", tmp_path / "out", "--json"
    )
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
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    family_name: str,
    options: tuple[str, ...],
    exit_code: int,
    words: str,
) -> None:
    checkpoint = artifact_cache.checkpoint(family_name)
    result = mvlm("convert", checkpoint, *options, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extended
def test_chat_takes_a_folder_in_mlcs_format(
    artifact_cache: ArtifactCache, tmp_path: Path, empty_cache: Path
) -> None:
    mvlm("convert", artifact_cache.checkpoint("text"), "--to", "mlc", "-o", tmp_path / "mlc")
    asked = ("--prompt", "Hello", "--max-tokens", "3", "--json", "--quant", "q4f16_1")
    answers = [
        mvlm("chat", place, *asked).json["token_ids"]
        for place in (artifact_cache.checkpoint("text"), tmp_path / "mlc")
    ]
    assert len(answers[0]) == 3
    assert answers[0] == answers[1]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: to a program it looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [1_000, 60_000, 150_000])
@pytest.mark.parametrize("arguments", [(), ("--format", "safetensors")], ids=["bin", "safetensors"])
def test_synth_on_a_full_disk(
    small: str, tmp_path: Path, arguments: tuple[str, ...], size: int
) -> None:
    with files_of_at_most(size):
        result = mvlm("synth", small, "-o", tmp_path / "place", *arguments)
    check_full(result, tmp_path)


@pytest.mark.parametrize("size", [1_000, 200_000])
@pytest.mark.parametrize("to", ["mlc", "gguf", "onnx"])
def test_convert_on_a_full_disk(
    artifact_cache: ArtifactCache, tmp_path: Path, to: str, size: int
) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    with files_of_at_most(size):
        result = mvlm("convert", checkpoint, "--to", to, "-o", tmp_path / "place")
    check_full(result, tmp_path)


def check_full(result: Result, folder: Path) -> None:
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: cannot write ")
    assert "no space left on the disk" in result.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.extended
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("verb", ["synth", "convert"])
def test_synth_and_convert_ended_halfway(verb: str, ending: signal.Signals, tmp_path: Path) -> None:
    """Nothing is taken for a whole checkpoint, and the next run sweeps up."""
    model = "MobileLLaMA-1.4B"
    place, source = tmp_path / "place", tmp_path / "source"
    if verb == "convert":
        assert mvlm("synth", model, "--layers", "1", "-o", source).exit_code == 0
        arguments = ["convert", str(source), "--to", "gguf"]
    else:
        arguments = ["synth", model, "--layers", "1"]
    command = [sys.executable, "-m", "mvlm.cli", *arguments, "-o", str(place)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and not is_halfway(tmp_path):
            time.sleep(0.002)
        child.send_signal(ending)
    assert child.returncode == (-signal.SIGKILL if ending == signal.SIGKILL else 130)
    assert not place.exists()
    with atomic_directory(place, mark=None):
        pass
    assert {path.name for path in tmp_path.iterdir()} <= {"place", "source"}


def is_halfway(folder: Path) -> bool:
    """Whether a megabyte has been written to a folder that is being prepared."""
    files = folder.glob(".place.staging-*/content/*")
    with contextlib.suppress(FileNotFoundError):
        return any(file.stat().st_blocks > 2048 for file in files)
    return False
