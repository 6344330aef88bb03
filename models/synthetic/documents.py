"""The JSON documents next to a checkpoint's weights, with the keys that the releases have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvlm.models.config.clip import ClipVisionConfig
from mvlm.models.config.image import CLIP_MEAN, CLIP_STD
from mvlm.models.config.llama import LlamaConfig


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write one document, indented as transformers does it."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def llama_document(config: LlamaConfig, dtype: str) -> dict[str, Any]:
    """Return the `config.json` of a MobileLLaMA."""
    values: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "max_sequence_length": config.max_position_embeddings,
        "model_type": "llama",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        values["head_dim"] = config.head_dim
    return values


def mobilevlm_document(
    config: LlamaConfig, tower: str, tower_width: int, projector: str, dtype: str
) -> dict[str, Any]:
    """Return the `config.json` of a MobileVLM.

    Args:
        config: The decoder.
        tower: The name or the path of its CLIP.
        tower_width: Channels of the tower's patch tokens.
        projector: `mm_projector_type`.
        dtype: Of the weights.
    """
    return llama_document(config, dtype) | {
        "architectures": ["MobileLlamaForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": tower_width,
        "mm_projector_type": projector,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "model_type": "mobilevlm",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        "vision_tower_type": "clip",
    }


def generation_document() -> dict[str, Any]:
    """Return `generation_config.json`."""
    return {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def tokenizer_document(max_length: int, *, legacy: bool | None) -> dict[str, Any]:
    """Return the `tokenizer_config.json` of the slow LLaMA tokenizer; None leaves `legacy` out."""
    values: dict[str, Any] = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": max_length,
        "pad_token": "<unk>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
    return values if legacy is None else values | {"legacy": legacy}


def special_tokens_document() -> dict[str, Any]:
    """Return `special_tokens_map.json`: LLaMA's three, padding with `<unk>`."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {key: {"content": text, **plain} for key, text in tokens.items()} | {
        "pad_token": "<unk>"
    }


def clip_vision_document(config: ClipVisionConfig, dtype: str) -> dict[str, Any]:
    """Return the `config.json` of a vision tower alone, a `CLIPVisionModel`."""
    return {
        "architectures": ["CLIPVisionModel"],
        "attention_dropout": 0.0,
        "hidden_act": config.hidden_act,
        "hidden_size": config.hidden_size,
        "image_size": config.image_size,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.layer_norm_eps,
        "model_type": "clip_vision_model",
        "num_attention_heads": config.num_attention_heads,
        "num_channels": 3,
        "num_hidden_layers": config.num_hidden_layers,
        "patch_size": config.patch_size,
        "projection_dim": config.hidden_size,
        "torch_dtype": dtype,
    }


def clip_document(config: ClipVisionConfig) -> dict[str, Any]:
    """Return the `config.json` of a whole CLIP with the text half of a ViT-L/14.

    As in OpenAI's files, most of what equals the default of transformers is left out.
    """
    return {
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "model_type": "clip_text_model",
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
        "torch_dtype": "float32",
        "vision_config": {
            "dropout": 0.0,
            "hidden_size": config.hidden_size,
            "image_size": config.image_size,
            "intermediate_size": config.intermediate_size,
            "model_type": "clip_vision_model",
            "num_attention_heads": config.num_attention_heads,
            "num_hidden_layers": config.num_hidden_layers,
            "patch_size": config.patch_size,
            "projection_dim": 768,
        },
    }


def preprocessor_document(size: int) -> dict[str, Any]:
    """Return the `preprocessor_config.json` of a `CLIPImageProcessor` for squares of `size`."""
    return {
        "crop_size": size,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(CLIP_MEAN),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(CLIP_STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": size,
    }
