"""Checkpoints that other tools have quantized: refused by the tool's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.checkpoint.quantized import quantizer
from mvlm.models.config.read import read_config
from mvlm.models.weight_files import open_weights
from mvlm.models.weight_files.torch_file import _unreadable
from mvlm.runtime.errors import CheckpointError, ConfigError
from tests.artifacts import ArtifactCache
from tests.reference.checkpoints import write_random_checkpoint

Q_PROJ = "model.layers.0.self_attn.q_proj"

# What transformers writes under `quantization_config`, and whom the message names.
CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    ({"load_in_8bit": True, "llm_int8_threshold": 6.0}, "bitsandbytes"),
    ({"bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "GPTQ"),
    ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "AWQ"),
    ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao"),
    ({"quant_method": "hqq"}, "HQQ"),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fine-grained FP8"),
    ({"quant_method": "quark"}, "quark"),
    ({"bits": 4}, "a tool that it does not name"),
    ({"quant_method": ["gptq"]}, "a tool that it does not name"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "model", "text", seed=0)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("section", "tool"), CONFIGS, ids=str)
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_by_the_configuration(folder: Path, key: str, section: dict[str, Any], tool: str) -> None:
    edit(folder / "config.json", **{key: section})
    for read in (read_config, open_checkpoint):
        with pytest.raises(ConfigError, match=rf"quantized with {tool} \(`{key}`\).*--quant"):
            read(folder)


def test_of_a_tower(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "linear", seed=0)
    edit(tmp_path / "model-clip/config.json", quantization_config={"quant_method": "awq"})
    with pytest.raises(ConfigError, match=r"model-clip/config\.json.*quantized with AWQ"):
        read_config(folder)


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_quantization(folder: Path, nothing: object) -> None:
    expected = read_config(folder)
    edit(folder / "config.json", quantization_config=nothing)
    assert read_config(folder) == expected


# What a layer has in the place of its weight, or beside it; the weight's dtype if it stays.
TENSORS: dict[str, tuple[tuple[str, ...], torch.dtype | None]] = {
    "bitsandbytes": (
        ("weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4"),
        torch.uint8,
    ),
    "GPTQ or AWQ": (("qweight", "qzeros", "scales", "g_idx"), None),
    "compressed-tensors": (("weight_packed", "weight_scale", "weight_shape"), None),
    "FP8": (("weight_scale_inv",), torch.float8_e4m3fn),
    "HQQ": (("W_q", "scale", "zero"), None),
    "AQLM": (("codes", "codebooks", "scales"), None),
    "EETQ": (("weight_scales",), torch.int8),
    "torchao": (("_weight_qdata", "_weight_scale"), None),
}


@pytest.mark.parametrize("tool", TENSORS)
def test_by_the_tensors(folder: Path, tool: str) -> None:
    """The configuration says nothing, as where GPTQ keeps its own file."""
    suffixes, dtype = TENSORS[tool]
    tensors = load_file(folder / "model.safetensors")
    weight = tensors.pop(f"{Q_PROJ}.weight")
    if dtype is not None:
        tensors[f"{Q_PROJ}.weight"] = weight.to(dtype)
    tensors |= {f"{Q_PROJ}.{suffix}": torch.zeros(4) for suffix in suffixes}
    save_file(tensors, folder / "model.safetensors")
    report = open_checkpoint(folder).check(expected_tensors(read_config(folder)))
    with pytest.raises(CheckpointError, match=rf"quantized with {tool}: expected .*float32"):
        report.raise_if_bad()


def test_eight_bits_of_bitsandbytes(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{Q_PROJ}.weight"] = tensors[f"{Q_PROJ}.weight"].to(torch.int8)
    tensors[f"{Q_PROJ}.SCB"] = torch.zeros(4)
    tensors["model.weight_format"] = torch.tensor(0)
    save_file(tensors, folder / "model.safetensors")
    report = open_checkpoint(folder).check(expected_tensors(read_config(folder)))
    with pytest.raises(CheckpointError, match="quantized with bitsandbytes"):
        report.raise_if_bad()


def test_no_plain_model_is_taken_for_a_quantized_one(artifact_cache: ArtifactCache) -> None:
    for family in ("text", "ldpnet", "ldpnetv2", "mlp3x_gelu"):
        assert quantizer(open_checkpoint(artifact_cache.checkpoint(family)).names()) is None


class Foreign:
    """A class that is no plain tensor, which a pickle names."""


def test_torchao_in_a_pickle(tmp_path: Path) -> None:
    """torch's own message of such a file has the class's name, which decides."""
    reason = "Weights only load failed. Unsupported global: GLOBAL torchao.quantization.Int4Tensor"
    error = _unreadable(tmp_path / "pytorch_model.bin", f"{reason} was not an allowed global")
    assert "quantized with torchao" in str(error)
    assert "torchao.quantization.Int4Tensor" in str(error)


def test_a_foreign_class_in_a_pickle_is_named(tmp_path: Path) -> None:
    torch.save({"a": Foreign()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"more than tensors.*test_quantized\.Foreign"):
        open_weights(tmp_path)


def test_gguf_files_in_the_place_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model-q4_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"GGUF files.*model-q4_0\.gguf"):
        open_weights(tmp_path)
