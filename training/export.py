"""Writes the two checkpoint folders in the layout of the official MobileVLM V1 releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from mvlm.training.model.clip import ClipConfig, ClipTower
from mvlm.training.model.llama import HEAD_DIM, ROPE_THETA, LlamaConfig
from mvlm.training.model.mobilevlm import MobileVlm, ModelConfig
from mvlm.training.pictures import MEAN, STD

MODEL_FOLDER = "mobilevlm-shapes"
TOWER_FOLDER = "clip-vit-shapes"


def export(output: Path, tower: ClipTower, model: MobileVlm, tokenizer: bytes) -> None:
    """Writes both folders under `output`; every file is replaced in one step."""
    side, folder = output / TOWER_FOLDER, output / MODEL_FOLDER
    for path in (side, folder):
        path.mkdir(parents=True, exist_ok=True)
    _write_json(side / "config.json", tower_config(tower.config))
    _write_json(side / "preprocessor_config.json", preprocessor_config(tower.config))
    _write_tensors(side / "model.safetensors", tower)
    _write_json(folder / "config.json", model_config(model.config))
    _write_json(
        folder / "generation_config.json",
        {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    )
    _write_json(folder / "tokenizer_config.json", tokenizer_config(model.config.llama))
    _write_json(folder / "special_tokens_map.json", special_tokens_map())
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
    return {
        "architectures": ["MobileLlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "hidden_size": llama.hidden,
        "image_aspect_ratio": "pad",
        "initializer_range": 0.02,
        "intermediate_size": llama.ffn,
        "max_position_embeddings": llama.max_positions,
        "max_sequence_length": llama.max_positions,
        "mm_hidden_size": config.clip.width,
        "mm_projector_type": "ldpnet",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"../{TOWER_FOLDER}",
        "model_type": "mobilevlm",
        "num_attention_heads": llama.heads,
        "num_hidden_layers": llama.layers,
        "num_key_value_heads": llama.heads,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rms_norm_eps": llama.norm_eps,
        "rope_scaling": None,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "tune_mm_mlp_adapter": False,
        "use_cache": True,
        "use_mm_proj": True,
        "vision_tower_type": "clip",
        "vocab_size": llama.vocab_size,
        "head_dim": HEAD_DIM,
    }


def tower_config(config: ClipConfig) -> dict[str, Any]:
    """`config.json` of a `CLIPVisionModel`."""
    return {
        "architectures": ["CLIPVisionModel"],
        "attention_dropout": 0.0,
        "hidden_act": "quick_gelu",
        "hidden_size": config.width,
        "image_size": config.image_size,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 4 * config.width,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model",
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.layers,
        "patch_size": config.patch_size,
        "projection_dim": config.width,
        "torch_dtype": "float16",
    }


def preprocessor_config(config: ClipConfig) -> dict[str, Any]:
    """`preprocessor_config.json` of a `CLIPImageProcessor`."""
    side = config.image_size
    return {
        "crop_size": side,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(MEAN),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": side,
    }


def tokenizer_config(config: LlamaConfig) -> dict[str, Any]:
    """`tokenizer_config.json` of the slow, legacy LLaMA tokenizer."""
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": True,
        "model_max_length": config.max_positions,
        "pad_token": "<unk>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def special_tokens_map() -> dict[str, Any]:
    """`special_tokens_map.json`: LLaMA's three, padding with `<unk>` as the releases do."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {key: {"content": text, **plain} for key, text in tokens.items()} | {
        "pad_token": "<unk>"
    }


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
