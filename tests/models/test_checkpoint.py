"""Weights are read whole, by name, from every format; damage and lies are refused."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from mvlm.models.checkpoint import (
    Checkpoint,
    Report,
    expected_tensors,
    open_checkpoint,
)
from mvlm.models.config import ClipVisionConfig
from mvlm.models.config.read import read_config
from mvlm.models.weight_files import open_weights
from mvlm.runtime.errors import CheckpointError, ConfigError, UsageError
from tests.reference import FAMILIES, Reference, write_random_checkpoint
from tests.reference.checkpoints import save_weights
from tests.reference.model import load_tensors

WITH_VISION = [name for name, family in FAMILIES.items() if family.vision]
TOWER = "vision_tower.vision_model."
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def check(folder: Path, vision_tower: Path | None = None) -> Report:
    config = read_config(folder, vision_tower)
    return open_checkpoint(folder, vision_tower).check(expected_tensors(config))


def rewrite(folder: Path, change: Mapping[str, torch.Tensor | None]) -> None:
    """Replace, add or (None) remove tensors of a folder's single safetensors file."""
    tensors = {**load_tensors(folder), **change}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_weights(folder, kept, file_format="safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A V1 checkpoint with its tower in `model-clip`."""
    return write_random_checkpoint(tmp_path / "model", "ldpnet", seed=0)


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_what_is_expected(tmp_path: Path, family: str) -> None:
    folder = write_random_checkpoint(tmp_path / "model", family, seed=0)
    report = check(folder)
    assert report.is_good
    report.raise_if_bad()
    vision = FAMILIES[family].vision or {"num_hidden_layers": 0}
    last = f"layers.{vision['num_hidden_layers'] - 1}."
    unused = (last, "post_layernorm", "position_ids", "text_", "visual_", "logit_scale")
    assert all(any(part in name for part in unused) for name in report.ignored)


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_formats_and_dtypes(tmp_path: Path, file_format: str, shards: int, dtype: str) -> None:
    folder = write_random_checkpoint(
        tmp_path / "model", "linear", seed=3, file_format=file_format, shards=shards, dtype=dtype
    )
    checkpoint = open_checkpoint(folder)
    official = load_tensors(folder) | {
        f"vision_tower.{name}": tensor
        for name, tensor in load_tensors(tmp_path / "model-clip").items()
    }
    assert list(checkpoint.names()) == sorted(official)
    for name, tensor in official.items():
        array = checkpoint.read(name)
        assert array.shape == checkpoint.shape(name) == tuple(tensor.shape)
        assert array.dtype == np.dtype(dtype) and checkpoint.dtype(name) == dtype
        assert array.flags.writeable and array.flags.c_contiguous
        np.testing.assert_array_equal(array.astype(np.float32), tensor.numpy())
    assert len(checkpoint.files()) == shards + (shards > 1) + 1


def test_bfloat16_needs_no_torch(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "ldpnetv2_odd", seed=3, dtype="bfloat16")
    code = (
        "import sys, pathlib; from mvlm.models.checkpoint import open_checkpoint;"
        f"print(open_checkpoint(pathlib.Path({str(folder)!r})).read({Q_PROJ!r}).dtype,"
        " 'torch' in sys.modules, 'tvm' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["bfloat16", "False", "False"]


def test_the_array_outlives_the_file(folder: Path) -> None:
    array = open_checkpoint(folder).read(Q_PROJ)
    shutil.rmtree(folder)
    assert np.isfinite(array).all()


def test_safetensors_are_preferred(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a zip")
    assert open_weights(folder).files() == (folder / "model.safetensors",)


def test_v1_takes_its_tower_from_the_folder(folder: Path) -> None:
    name = "encoder.layers.0.mlp.fc1.bias"
    inside = {
        f"model.vision_tower.vision_tower.{own}": torch.zeros_like(tensor)
        for own, tensor in load_tensors(folder.with_name("model-clip")).items()
    }
    rewrite(folder, inside)
    assert np.abs(open_checkpoint(folder).read(TOWER + name)).max() > 0
    report = check(folder)
    report.raise_if_bad()
    assert f"model.vision_tower.vision_tower.vision_model.{name}" in report.ignored


def test_v2_takes_its_tower_from_inside(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "ldpnetv2", seed=0)
    tower = tmp_path / "model-clip"
    tower.mkdir()
    vision = dict(FAMILIES["ldpnetv2"].vision or {})
    (tower / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **vision}))
    (tower / "model.safetensors").write_bytes(b"never opened")
    check(folder).raise_if_bad()
    bias = open_checkpoint(folder).read(TOWER + "encoder.layers.0.mlp.fc1.bias")
    own = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"
    np.testing.assert_array_equal(bias, load_tensors(folder)[own].numpy())


@pytest.mark.parametrize("family", ["ldpnetv2", "ldpnetv2_odd"])
def test_v2_alone_tells_its_tower_from_its_tensors(tmp_path: Path, family: str) -> None:
    folder = write_random_checkpoint(tmp_path / "model", family, seed=0)
    assert read_config(folder).vision == ClipVisionConfig(**FAMILIES[family].vision or {})
    weights = folder / "model.safetensors"
    cut = {name: None for name in load_tensors(folder) if name.endswith("fc1.weight")}
    rewrite(folder, cut)
    with pytest.raises(ConfigError, match=r"fc1\.weight.*--vision-tower"):
        read_config(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="no weights in"):
        read_config(folder)


def test_v2_alone_with_an_odd_width_needs_the_folder(tmp_path: Path) -> None:
    folder = write_random_checkpoint(
        tmp_path / "model",
        "ldpnetv2",
        seed=0,
        mm_hidden_size=96,
        vision={"hidden_size": 96},
    )
    with pytest.raises(ConfigError, match=r"heads of 64.*--vision-tower"):
        read_config(folder)


def test_text_only_reads_no_tower(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "text", seed=0)
    assert not any("vision" in name for name in open_checkpoint(folder).names())


def test_tied_embeddings_need_no_head(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "text", seed=0, tie_word_embeddings=True)
    check(folder).raise_if_bad()
    assert "lm_head.weight" not in expected_tensors(read_config(folder))
    rewrite(folder, {"lm_head.weight": torch.zeros(384, 128)})
    assert check(folder).ignored == ("lm_head.weight",)


def test_names_are_those_of_the_reference(folder: Path) -> None:
    """What transformers calls the decoder's parameters, and what the projector is written with."""
    model = Reference(folder)
    expected = expected_tensors(read_config(folder))
    shapes = {name: tuple(value.shape) for name, value in model.language.state_dict().items()}
    shapes |= {
        f"model.mm_projector.{name}": tuple(value.shape) for name, value in model.projector.items()
    }
    assert model.tower is not None
    shapes |= {
        f"vision_tower.{name}": tuple(value.shape)
        for name, value in model.tower.state_dict().items()
        if "layers.2." not in name and "post_layernorm" not in name
    }
    assert expected == shapes


# --- the report ---------------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_by_name(folder: Path) -> None:
    rewrite(
        folder,
        {
            "model.norm.weight": None,
            "model.layers.1.mlp.up_proj.weight": torch.zeros(256, 64),
            "model.layers.2.mlp.up_proj.weight": torch.zeros(256, 128),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(32),
        },
    )
    report = check(folder)
    assert report.missing == ("model.norm.weight",)
    assert report.unexpected == ("model.layers.2.mlp.up_proj.weight",)
    assert report.misshapen == (("model.layers.1.mlp.up_proj.weight", (256, 128), (256, 64)),)
    assert "model.layers.0.self_attn.rotary_emb.inv_freq" in report.ignored
    with pytest.raises(CheckpointError) as caught:
        report.raise_if_bad()
    message = str(caught.value)
    assert "1 missing: model.norm.weight" in message
    assert "up_proj.weight (expected 256x128, found 256x64)" in message


def test_long_lists_are_counted(folder: Path) -> None:
    rewrite(folder, {f"extra.{index}": torch.zeros(1) for index in range(100)})
    with pytest.raises(CheckpointError, match=r"100 unexpected: .* and 92 more") as caught:
        check(folder).raise_if_bad()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_a_quantized_tensor_is_refused(tmp_path: Path, file_format: str) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "text", seed=0)
    tensors = {**load_tensors(folder), Q_PROJ: torch.zeros(128, 128, dtype=torch.int8)}
    (folder / "model.safetensors").unlink()
    save_weights(folder, tensors, file_format=file_format)
    with pytest.raises(CheckpointError, match=r"1 not float32/float16/bfloat16: .*q_proj"):
        check(folder).raise_if_bad()
    with pytest.raises(CheckpointError, match=r"q_proj.*unsupported dtype"):
        open_checkpoint(folder).read(Q_PROJ)


def test_a_model_of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    missing = check(folder).missing
    assert len(missing) == 9 and all("layers.2." in name for name in missing)


# --- damaged files ------------------------------------------------------------------------------


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights in .*found config\.json"):
        open_checkpoint(folder)


def test_no_tower(folder: Path) -> None:
    shutil.rmtree(folder.with_name("model-clip"))
    with pytest.raises(ConfigError, match="--vision-tower"):
        open_checkpoint(folder)
    with pytest.raises(UsageError, match="--vision-tower"):
        open_checkpoint(folder, folder / "nowhere")


@pytest.mark.parametrize(
    ("file_format", "name"),
    [("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")],
)
@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_truncated(tmp_path: Path, file_format: str, name: str, kept: int) -> None:
    folder = write_random_checkpoint(tmp_path / "m", "text", seed=0, file_format=file_format)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:kept])
    with pytest.raises(CheckpointError, match=rf"{name} is (not a whole|empty)"):
        open_checkpoint(folder)


def test_git_lfs_pointer(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(folder)


def header(tensors: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], *offsets: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "data",
    [
        header({"a": tensor([2], 0, 8)}, length=2**63),
        header({"a": tensor([2], 0, 8)}, length=10**8),
        header({"a": tensor([3], 0, 8)}, bytes(8)),
        header({"a": tensor([2**62, 2**62], 0, 8)}, bytes(8)),
        header({"a": tensor([-2], 0, 8)}, bytes(8)),
        header({"a": tensor([2], 0, 8), "b": tensor([2], 0, 8)}, bytes(8)),
        header({"a": tensor([2], 8, 16)}, bytes(16)),
        header({"a": tensor([2], 0, 8)}, bytes(9)),
        header({"a": tensor([2], 8, 0)}, bytes(8)),
        header({"a": tensor([2], 0, 8, dtype="F99")}, bytes(8)),
        header(["a"]),
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
    ],
)
def test_lying_safetensors_headers(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole"):
        open_checkpoint(folder)


# --- indexes ------------------------------------------------------------------------------------


@pytest.fixture(params=["safetensors", "bin"])
def sharded(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The index of a text-only checkpoint in three files."""
    folder = write_random_checkpoint(
        tmp_path / "model", "text", seed=0, file_format=request.param, shards=3
    )
    return next(folder.glob("*.index.json"))


def edit_index(index: Path, **changes: object) -> None:
    values = json.loads(index.read_text())
    values["weight_map"].update(changes)
    index.write_text(json.dumps(values))


def shard(index: Path, number: int) -> Path:
    return sorted(index.parent.glob("*-of-00003.*"))[number - 1]


def test_listed_but_absent_shard(sharded: Path) -> None:
    gone = shard(sharded, 2)
    gone.unlink()
    with pytest.raises(CheckpointError, match=rf"not next to it: {gone.name}"):
        open_checkpoint(sharded.parent)


def test_truncated_shard(sharded: Path) -> None:
    path = shard(sharded, 3)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=rf"{path.name} is not a whole"):
        open_checkpoint(sharded.parent)


def test_tensor_listed_in_the_wrong_shard(sharded: Path) -> None:
    edit_index(sharded, **{"model.norm.bias": shard(sharded, 1).name})
    with pytest.raises(CheckpointError, match=r"not in their files: model\.norm\.bias"):
        open_checkpoint(sharded.parent)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.{}",
        "/etc/secret.{}",
        "..\\secret.{}",
        "C:secret.{}",
        "\0.{}",
        "passwd",
        "",
        3,
        None,
    ],
)
def test_paths_out_of_the_folder(sharded: Path, path: str | int | None) -> None:
    suffix = shard(sharded, 1).suffix[1:]
    secret = sharded.parent.parent / f"secret.{suffix}"
    shutil.copy(shard(sharded, 1), secret)
    edit_index(sharded, stolen=path.format(suffix) if isinstance(path, str) else path)
    with pytest.raises(CheckpointError, match="plain file name"):
        open_checkpoint(sharded.parent)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": 1e999}'])
def test_damaged_indexes(sharded: Path, text: str) -> None:
    sharded.write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_checkpoint(sharded.parent)


# --- pickles ------------------------------------------------------------------------------------


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """The weight file of a text-only checkpoint in PyTorch's format."""
    folder = write_random_checkpoint(tmp_path / "model", "text", seed=0, file_format="bin")
    return folder / "pytorch_model.bin"


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_not_run(pickled: Path, tmp_path: Path) -> None:
    torch.save({"a": Harmful(tmp_path / "run")}, pickled)
    with pytest.raises(CheckpointError, match="more than tensors") as caught:
        open_checkpoint(pickled.parent)
    assert not (tmp_path / "run").exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        torch.zeros(2),
        {"a": "text"},
        {3: torch.zeros(2)},
        {"a": {"b": torch.zeros(2)}},
        {"a": torch.zeros(1).expand(2**30, 2**30)},
        {"a": torch.zeros(4, 4).to_sparse()},
    ],
    ids=["list", "tensor", "text", "number", "nested", "expanded", "sparse"],
)
def test_pickles_of_other_things(pickled: Path, content: object) -> None:
    torch.save(content, pickled)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_checkpoint(pickled.parent)


def test_a_compressed_archive_is_not_unpacked(pickled: Path) -> None:
    with zipfile.ZipFile(pickled) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(pickled, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(pickled.parent)


def test_the_old_format_is_refused_by_name(pickled: Path) -> None:
    torch.save({"a": torch.zeros(2)}, pickled, _use_new_zipfile_serialization=False)
    with pytest.raises(
        CheckpointError, match=r"zip archive as torch has written since version 1\.6"
    ):
        open_checkpoint(pickled.parent)


def test_transposed_tensors_are_read_in_order(pickled: Path) -> None:
    rows = torch.arange(6.0).view(2, 3)
    torch.save({"a": rows.T, "b": rows.T.bfloat16()}, pickled)
    weights = open_weights(pickled.parent)
    np.testing.assert_array_equal(weights.read("a"), rows.T.numpy())
    assert weights.read("b").dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(weights.read("b").astype(np.float32), rows.T.numpy())


def test_without_torch_the_command_is_named(pickled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"pip install torch==2\.13\.0"):
        open_checkpoint(pickled.parent)


def test_unknown_names(folder: Path) -> None:
    checkpoint: Checkpoint = open_checkpoint(folder)
    for ask in (checkpoint.read, checkpoint.shape, checkpoint.dtype):
        with pytest.raises(KeyError):
            ask("model.nothing")
