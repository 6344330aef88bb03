"""Writes the two checkpoint folders in the layout of the official MobileVLM V1 releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from mvlm.models.config import ClipVisionConfig
from mvlm.models.config import LlamaConfig as Decoder
from mvlm.models.synthetic import documents
from mvlm.training.model.clip import ClipConfig, ClipTower
from mvlm.training.model.llama import HEAD_DIM, ROPE_THETA, LlamaConfig
from mvlm.training.model.mobilevlm import MobileVlm, ModelConfig

MODEL_FOLDER = "mobilevlm-shapes"
TOWER_FOLDER = "clip-vit-shapes"
DTYPE = "float16"


def export(output: Path, tower: ClipTower, model: MobileVlm, tokenizer: bytes) -> None:
    """Writes both folders under `output`; every file is replaced in one step."""
    side, folder = output / TOWER_FOLDER, output / MODEL_FOLDER
    for path in (side, folder):
        path.mkdir(parents=True, exist_ok=True)
    _write_json(side / "config.json", tower_config(tower.config))
    preprocessor = documents.preprocessor_document(tower.config.image_size)
    _write_json(side / "preprocessor_config.json", preprocessor)
    _write_tensors(side / "model.safetensors", tower)
    _write_json(folder / "config.json", model_config(model.config))
    _write_json(folder / "generation_config.json", documents.generation_document())
    longest = model.config.llama.max_positions
    _write_json(
        folder / "tokenizer_config.json", documents.tokenizer_document(longest, legacy=True)
    )
    _write_json(folder / "special_tokens_map.json", documents.special_tokens_document())
    _replace(folder / "tokenizer.model", tokenizer)
    _write_tensors(folder / "model.safetensors", model)


def load(output: Path) -> tuple[ClipTower, MobileVlm, bytes]:
    """Reads what `export` wrote, as float32 modules and the tokenizer's bytes."""
    side, folder = output / TOWER_FOLDER, output / MODEL_FOLDER
    vision = json.loads((side / "config.json").read_text())
    text = json.loads((folder / "config.json").read_text())
    clip = ClipConfig(
        vision["image_size"], vision["patch_size"], vision["hidden_size"],
        vision["num_attention_heads"], vision["num_hidden_layers"],
    )  # fmt: skip
    llama = LlamaConfig(
        text["vocab_size"], text["hidden_size"], text["intermediate_size"],
        text["num_hidden_layers"], text["max_position_embeddings"], text["rms_norm_eps"],
    )  # fmt: skip
    tower, model = ClipTower(clip), MobileVlm(ModelConfig(clip, llama))
    for module, path in ((tower, side), (model, folder)):
        tensors = load_file(path / "model.safetensors")
        module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return tower, model, (folder / "tokenizer.model").read_bytes()


def model_config(config: ModelConfig) -> dict[str, Any]:
    """`config.json` of the model folder, with the keys that MobileVLM-1.7B has."""
    llama = config.llama
    decoder = Decoder(
        vocab_size=llama.vocab_size,
        hidden_size=llama.hidden,
        intermediate_size=llama.ffn,
        num_hidden_layers=llama.layers,
        num_attention_heads=llama.heads,
        num_key_value_heads=llama.heads,
        head_dim=HEAD_DIM,
        rms_norm_eps=llama.norm_eps,
        rope_theta=ROPE_THETA,
        max_position_embeddings=llama.max_positions,
        tie_word_embeddings=False,
    )
    return documents.mobilevlm_document(
        decoder, f"../{TOWER_FOLDER}", config.clip.width, "ldpnet", DTYPE
    )


def tower_config(config: ClipConfig) -> dict[str, Any]:
    """`config.json` of a `CLIPVisionModel`."""
    tower = ClipVisionConfig(
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=1e-5,
        hidden_act="quick_gelu",
    )
    return documents.clip_vision_document(tower, DTYPE)


def _write_tensors(path: Path, module: torch.nn.Module) -> None:
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in module.state_dict().items()
    }
    _replace(path, save(tensors, metadata={"format": "pt"}))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _replace(path, (json.dumps(value, indent=2) + "\n").encode())


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
