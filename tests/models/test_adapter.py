"""LoRA adapters: merged as peft itself merges them, and refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.runtime.artifact import map_weights, read_manifest
from mvlm.runtime.errors import CheckpointError, ConfigError, MvlmError, UsageError
from tests.adapters import TOLERANCE, edit, opened, rewrite, write_adapter
from tests.artifacts import ArtifactCache

KINDS: dict[str, dict[str, Any]] = {
    "queries and values": {"target_modules": ["q_proj", "v_proj"]},
    "all linear layers": {"target_modules": "all-linear"},
    "rank-stabilized": {"target_modules": ["o_proj", "down_proj"], "use_rslora": True},
    "ranks and alphas of their own": {
        "target_modules": ["q_proj", "up_proj"],
        "rank_pattern": {"up_proj": 3, "model.layers.1.self_attn.q_proj": 5},
        "alpha_pattern": {"q_proj": 2},
    },
    "DoRA": {"target_modules": ["k_proj", "gate_proj"], "use_dora": True},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
    "DoRA of embeddings": {"target_modules": ["embed_tokens", "up_proj"], "use_dora": True},
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def checkpoint(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.checkpoint("text")


@pytest.fixture
def adapter(checkpoint: Path, tmp_path: Path) -> Path:
    write_adapter(checkpoint, tmp_path / "adapter", **KINDS["queries and values"])
    return tmp_path / "adapter"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_merged_as_peft_merges(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    model = write_adapter(checkpoint, tmp_path / "adapter", **KINDS[kind])
    merged = model.merge_and_unload().state_dict()
    found, plain = opened(checkpoint, tmp_path / "adapter"), open_checkpoint(checkpoint)
    changed = 0
    for name in expected_tensors(read_config(checkpoint)):
        expected = merged[name].numpy()
        np.testing.assert_allclose(found.read(name), expected, atol=TOLERANCE, err_msg=name)
        changed += not np.array_equal(plain.read(name), found.read(name))
    assert changed > 0


def test_pytorch_files_and_other_half_precision(checkpoint: Path, adapter: Path) -> None:
    expected = opened(checkpoint, adapter).read("model.layers.0.self_attn.q_proj.weight")
    tensors = load_file(adapter / "adapter_model.safetensors")
    torch.save(tensors, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    found = opened(checkpoint, adapter)
    name = "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_array_equal(found.read(name), expected)
    assert adapter / "adapter_model.bin" in found.files()
    assert adapter / "adapter_config.json" in found.files()


@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
def test_projector_and_tower_from_non_lora_trainables(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    """What MobileVLM's own training writes beside the adapter, under its names."""
    checkpoint = artifact_cache.checkpoint(family)
    language = open_checkpoint(checkpoint)
    names = [name for name in language.names() if name.startswith("model.mm_projector.")]
    new = {f"base_model.model.{name}": torch.randn(language.shape(name)) for name in names}
    query = "model.layers.0.self_attn.q_proj"
    out, width = language.shape(f"{query}.weight")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    pair = {"A": torch.randn(2, width), "B": torch.randn(out, 2)}
    save_file(
        {f"base_model.model.{query}.lora_{key}.weight": pair[key] for key in pair},
        tmp_path / "adapter_model.safetensors",
    )
    if family == "ldpnetv2":
        tower = "vision_tower.vision_tower.vision_model.pre_layrnorm.bias"
        shape = language.shape("vision_tower.vision_model.pre_layrnorm.bias")
        new[f"base_model.model.model.{tower}"] = torch.randn(shape)
    torch.save(new, tmp_path / "non_lora_trainables.bin")
    found = opened(checkpoint, tmp_path)
    for name in names:
        np.testing.assert_array_equal(found.read(name), new[f"base_model.model.{name}"].numpy())
    if family == "ldpnetv2":
        name = "vision_tower.vision_model.pre_layrnorm.bias"
        np.testing.assert_array_equal(
            found.read(name), new[f"base_model.model.model.{tower}"].numpy()
        )
    expected = language.read(f"{query}.weight") + 2 * (pair["B"] @ pair["A"]).numpy()
    np.testing.assert_allclose(found.read(f"{query}.weight"), expected, atol=1e-5)


# --- several adapters ---------------------------------------------------------------------------


@pytest.mark.extended
def test_artifacts_share_what_adapters_leave_alone(checkpoint: Path, tmp_path: Path) -> None:
    places = []
    for index in range(2):
        write_adapter(
            checkpoint, tmp_path / f"adapter{index}", seed=index, **KINDS["queries and values"]
        )
        job = plan_job(checkpoint, quantization="q0f32", adapter=tmp_path / f"adapter{index}")
        place = tmp_path / f"artifact{index}"
        compile_job(job, place, share=places)
        places.append(place)
    left, right = ({e.path: e.sha256 for e in read_manifest(p).files} for p in places)
    weights = [path for path in left if path.startswith("weights/") and path.endswith(".bin")]
    for path in weights:
        same_file = (places[0] / path).samefile(places[1] / path)
        assert same_file == (left[path] == right[path]) == ("attention" not in path), path
    assert [*map(len, map(map_weights, places))] == [len(map_weights(places[0]))] * 2
    assert read_manifest(places[0]).model["name"] == "text+adapter0"


@pytest.mark.extended
def test_a_damaged_weight_file_is_not_linked(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint, source, place = (
        artifact_cache.checkpoint("text"),
        tmp_path / "source",
        tmp_path / "place",
    )
    job = plan_job(checkpoint, quantization="q0f32")
    compile_job(job, source)
    head = source / "weights" / "head.bin"
    content = bytearray(head.read_bytes())
    content[0] ^= 1
    head.write_bytes(content)
    compile_job(job, place, share=[source])
    assert not head.samefile(place / "weights" / "head.bin")
    assert (source / "weights" / "embedding.bin").samefile(place / "weights" / "embedding.bin")
    map_weights(place)


# --- what does not fit --------------------------------------------------------------------------


def rename_first(tensors: dict[str, torch.Tensor], old: str, new: str) -> None:
    name = next(name for name in sorted(tensors) if old in name)
    tensors[name.replace(old, new)] = tensors.pop(name)


BAD: dict[str, tuple[Callable[[Path], object], type[MvlmError], str]] = {
    "no configuration": (
        lambda a: (a / "adapter_config.json").unlink(),
        UsageError,
        "is not the folder of an adapter",
    ),
    "no weights": (
        lambda a: (a / "adapter_model.safetensors").unlink(),
        CheckpointError,
        r"no weights.*adapter_model\.safetensors",
    ),
    "half a download": (
        lambda a: (a / "adapter_model.safetensors").write_bytes(
            (a / "adapter_model.safetensors").read_bytes()[:-9]
        ),
        CheckpointError,
        "is not a whole safetensors file",
    ),
    "another method": (lambda a: edit(a, peft_type="IA3"), ConfigError, "peft_type.*LORA"),
    "biases": (lambda a: edit(a, bias="some"), ConfigError, "bias.*'lora_only'.*'some'"),
    "transposed": (lambda a: edit(a, fan_in_fan_out=True), ConfigError, "fan_in_fan_out"),
    "another rank": (lambda a: edit(a, r=8), CheckpointError, "rank.*expected 8, found 4"),
    "alpha of text": (lambda a: edit(a, lora_alpha="6"), ConfigError, "lora_alpha"),
    "no alpha": (lambda a: edit(a, lora_alpha=None), ConfigError, "lora_alpha"),
    "an expression": (
        lambda a: edit(a, alpha_pattern={"(a+)+$": 1}),
        ConfigError,
        "regular expression",
    ),
    "half a pair": (
        lambda a: rewrite(a, lambda t: t.pop(next(n for n in t if "lora_B" in n))),
        CheckpointError,
        "is not whole.*lora_A",
    ),
    "a layer too many": (
        lambda a: rewrite(
            a, lambda t: [rename_first(t, "layers.0", "layers.9") for _ in range(2)]
        ),
        CheckpointError,
        r"for another model.*layers\.9",
    ),
    "other widths": (
        lambda a: rewrite(a, lambda t: t.update({n: v.repeat(1, 2) for n, v in t.items()
                                                 if "lora_A" in n})),
        CheckpointError,
        r"for another model.*expected \d+x\d+, found \d+x\d+",
    ),
    "an unknown tensor": (
        lambda a: rewrite(a, lambda t: rename_first(t, "lora_A", "lora_Z")),
        CheckpointError,
        "unknown kind",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_adapters_are_refused(checkpoint: Path, adapter: Path, name: str) -> None:
    change, error, message = BAD[name]
    change(adapter)
    with pytest.raises(error, match=message):
        opened(checkpoint, adapter)


def test_a_missing_adapter_folder_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the folder of an adapter"):
        open_checkpoint(checkpoint, adapter=tmp_path / "nowhere")


@pytest.mark.extended
def test_an_infinite_adapter_is_refused(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    rewrite(adapter, lambda t: t[next(n for n in sorted(t) if "lora_A" in n)].fill_(torch.inf))
    with pytest.raises(CheckpointError, match="holds NaN or infinite values"):
        compile_job(plan_job(checkpoint, adapter=adapter), tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()
