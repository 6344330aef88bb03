"""Broken links and Git LFS pointers in the place of files: named as such, wherever one is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mvlm.cli.shared.artifacts import find_artifact
from mvlm.compile.job import plan_job
from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.models.onnx_vision import import_vision
from mvlm.runtime.errors import CheckpointError, ConfigError, MvlmError, UsageError
from mvlm.runtime.input_file import is_present, refuse_lfs_pointer
from mvlm.runtime.tokenizer import Tokenizer
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache
from tests.reference.checkpoints import write_random_checkpoint

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347\nsize 499723\n"
)


# --- one file -----------------------------------------------------------------------------------


def test_is_present_of_files_links_and_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert is_present(tmp_path / "file", ConfigError)
    assert is_present(tmp_path / "link", ConfigError)
    for absent in ("nothing", "nothing/below", "file/below", ".", "\0", "a" * 5000):
        assert not is_present(tmp_path / absent, ConfigError)


@pytest.mark.parametrize("place", ["link", "folder/file"])
def test_a_broken_link_is_refused(tmp_path: Path, place: str) -> None:
    """The link may be the file itself or a folder on the way to it."""
    (tmp_path / place.partition("/")[0]).symlink_to("../blobs/0123")
    with pytest.raises(CheckpointError, match=r"leads nowhere.*found a link to \.\./blobs/0123"):
        is_present(tmp_path / place, CheckpointError)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(ConfigError, match="leads nowhere"):
        is_present(tmp_path / "link", ConfigError)


def test_only_git_lfs_pointers_are_taken_for_pointers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"f is a Git LFS pointer.*git lfs pull"):
        refuse_lfs_pointer(tmp_path / "f", POINTER.encode(), ConfigError)
    for text in (b"", b"version 2", b"{}"):
        refuse_lfs_pointer(tmp_path / "f", text, ConfigError)


# --- every file of a checkpoint -----------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V1 with sharded weights and every optional file, and its tower next to it."""
    folder = write_random_checkpoint(
        tmp_path_factory.mktemp("whole") / "model", "linear", seed=0, shards=2
    )
    (folder / "added_tokens.json").write_text("{}")
    return folder


def read(folder: Path) -> None:
    config = read_config(folder)
    open_checkpoint(folder).check(expected_tensors(config)).raise_if_bad()
    Tokenizer(plan_job(folder, logs=()).tokenizer)


@pytest.mark.parametrize("damage", ["link", "pointer"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "../model-clip/config.json",
        "../model-clip/preprocessor_config.json",
        "../model-clip/model.safetensors",
    ],
)
def test_broken_links_and_pointers_of_a_checkpoint(
    whole: Path, tmp_path: Path, name: str, damage: str
) -> None:
    shutil.copytree(whole.parent, tmp_path / "copy")
    path = (tmp_path / "copy/model" / name).resolve()
    spoil(path, damage)
    with pytest.raises(MvlmError, match=MESSAGES[damage]) as caught:
        read(tmp_path / "copy/model")
    assert path.name in str(caught.value)


MESSAGES = {"link": "is a link that leads nowhere", "pointer": "is a Git LFS pointer"}


def spoil(path: Path, damage: str) -> None:
    path.unlink()
    if damage == "link":
        path.symlink_to("nowhere")
    else:
        path.write_text(POINTER)


def test_a_tower_folder_that_is_a_broken_link(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model-clip").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"model-clip is a link that leads nowhere"):
        read_config(tmp_path / "model")


def test_a_v2_does_not_need_a_cache_on_an_absent_disk(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact_cache.checkpoint("ldpnetv2")
    (tmp_path / "hub").symlink_to("nowhere")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert read_config(folder).vision is not None


@pytest.mark.parametrize("damage", MESSAGES)
@pytest.mark.parametrize(
    "name", ["mlc-chat-config.json", "tensor-cache.json", "params_shard_0.bin"]
)
def test_broken_links_and_pointers_of_mlc_files(
    artifact_cache: ArtifactCache, tmp_path: Path, name: str, damage: str
) -> None:
    folder = tmp_path / "mlc"
    folder.mkdir()
    convert(artifact_cache.checkpoint("text"), folder, Conversion("mlc", "q0f32"))
    (folder / "config.json").unlink()
    spoil(folder / name, damage)
    with pytest.raises(MvlmError, match=MESSAGES[damage]):
        read(folder)


@pytest.mark.parametrize("damage", MESSAGES)
@pytest.mark.parametrize("to", ["mlc", "gguf"])
def test_a_broken_tokenizer_link_in_a_conversion(
    artifact_cache: ArtifactCache, tmp_path: Path, to: str, damage: str
) -> None:
    source, folder = tmp_path / "text", tmp_path / "out"
    shutil.copytree(artifact_cache.checkpoint("text"), source)
    folder.mkdir()
    spoil(source / "tokenizer.model", damage)
    with pytest.raises(MvlmError, match=MESSAGES[damage]):
        convert(source, folder, Conversion(to))


@pytest.mark.parametrize("damage", MESSAGES)
def test_a_broken_link_to_an_onnx_graph(
    artifact_cache: ArtifactCache, tmp_path: Path, damage: str
) -> None:
    (tmp_path / "vision.onnx").touch()
    spoil(tmp_path / "vision.onnx", damage)
    with pytest.raises(CheckpointError, match=MESSAGES[damage]):
        import_vision(
            tmp_path / "vision.onnx", read_config(artifact_cache.checkpoint("linear")), PANELS
        )


def test_chat_with_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("nowhere")
    with pytest.raises(UsageError, match="leads nowhere"):
        find_artifact(tmp_path)
