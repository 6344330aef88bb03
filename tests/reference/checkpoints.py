"""Random checkpoints in the layout of the official releases, at unit scale.

Unit scale means that activations and logits are near one, so that an absolute tolerance says
something, while what goes into the first normalization is as small as in trained models, so that
a wrong epsilon shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from tests.reference.families import FAMILIES, Family
from tests.reference.projectors import projector_shapes
from tests.reference.tokenizer import VOCAB_SIZE, write_tokenizer

Shapes = dict[str, tuple[int, ...]]


def write_random_checkpoint(
    folder: Path,
    family: str,
    *,
    seed: int,
    file_format: str = "safetensors",
    shards: int = 1,
    dtype: str = "float32",
    **overrides: Any,
) -> Path:
    """Write a random checkpoint; for a V1 also its tower, into `<folder>-clip` beside it.

    Args:
        folder: Where to write; must not exist.
        family: A key of :data:`FAMILIES`.
        seed: Of the weights.
        file_format: `safetensors` or `bin`.
        shards: Files to split the checkpoint's weights into; with an index if more than one.
        dtype: Of the weights: `float32`, `float16` or `bfloat16`.
        overrides: Keys to change in `config.json`; `vision=` takes those of the tower.

    Returns:
        `folder`.
    """
    kind = FAMILIES[family]
    folder.mkdir(parents=True)
    vision = {**kind.vision, **overrides.pop("vision", {})} if kind.vision else None
    config = {**_config(kind, f"../{folder.name}-clip", vision), **overrides}
    generator = torch.Generator().manual_seed(seed)

    def draw(shapes: Shapes) -> dict[str, Tensor]:
        values = {name: _initial(name, shape, generator) for name, shape in shapes.items()}
        return {name: value.to(getattr(torch, dtype)) for name, value in values.items()}

    tensors = draw(_language_shapes(config))
    if vision is not None:
        tower = draw(_vision_shapes(vision))
        projector = projector_shapes(
            config["mm_projector_type"], vision["hidden_size"], config["hidden_size"]
        )
        tensors |= draw({f"model.mm_projector.{name}": projector[name] for name in projector})
        if kind.is_v2:
            tensors |= {f"model.vision_tower.vision_tower.{name}": tower[name] for name in tower}
        else:
            if kind.whole_clip:
                tower |= _text_half(vision)
            _write_tower(folder, kind, vision, tower, file_format)
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    )
    write_tokenizer(folder, legacy=kind.legacy)
    save_weights(folder, tensors, file_format=file_format, shards=shards)
    return folder


def save_weights(
    folder: Path, tensors: Mapping[str, Tensor], *, file_format: str, shards: int = 1
) -> None:
    """Write weight files as transformers names them."""
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[
        file_format
    ]
    names = sorted(tensors)
    if shards == 1:
        _save(folder / f"{stem}.{suffix}", dict(tensors))
        return
    weight_map = {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.{suffix}"
        chosen = names[shard::shards]
        _save(folder / file, {name: tensors[name] for name in chosen})
        weight_map.update(dict.fromkeys(chosen, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / f"{stem}.{suffix}.index.json", index)


def _config(kind: Family, tower: str, vision: Mapping[str, Any] | None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCAB_SIZE,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
        **kind.language,
    }
    if vision is not None:
        config |= {
            "model_type": "mobilevlm",
            "architectures": ["MobileLlamaForCausalLM"],
            "mm_vision_tower": tower,
            "vision_tower_type": "clip",
            "mm_projector_type": kind.projector,
            "mm_hidden_size": vision["hidden_size"],
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch",
            "mm_use_im_patch_token": False,
            "mm_use_im_start_end": False,
            "image_aspect_ratio": "pad",
        }
    return {**config, **kind.extra}


def _language_shapes(config: Mapping[str, Any]) -> Shapes:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del shapes["lm_head.weight"]
    return shapes


def _vision_shapes(vision: Mapping[str, Any]) -> Shapes:
    with torch.device("meta"):
        model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _text_half(vision: Mapping[str, Any]) -> dict[str, Tensor]:
    """Some of what a whole CLIP has besides the vision tower."""
    positions = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    return {
        "logit_scale": torch.tensor(4.6),
        "text_projection.weight": torch.zeros(8, 8),
        "visual_projection.weight": torch.zeros(8, vision["hidden_size"]),
        "text_model.embeddings.token_embedding.weight": torch.zeros(16, 8),
        "text_model.embeddings.position_ids": torch.arange(4)[None],
        "vision_model.embeddings.position_ids": torch.arange(positions)[None],
    }


def _write_tower(
    folder: Path,
    kind: Family,
    vision: Mapping[str, Any],
    tower: Mapping[str, Tensor],
    file_format: str,
) -> None:
    place = folder.with_name(f"{folder.name}-clip")
    place.mkdir()
    config = {"model_type": "clip_vision_model", **vision}
    if kind.whole_clip:
        # As in OpenAI's files: what equals the default of transformers is left out.
        default = transformers.CLIPVisionConfig().to_dict()
        nested = {key: value for key, value in vision.items() if value != default[key]}
        config = {"model_type": "clip", "vision_config": nested, "text_config": {}}
    size = vision["image_size"]
    _write_json(place / "config.json", config)
    _write_json(
        place / "preprocessor_config.json",
        {
            "crop_size": size,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": size,
        },
    )
    save_weights(place, tower, file_format=file_format)


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random values whose scale fits the tensor's role."""
    noise = torch.randn(shape, generator=generator)
    scale = _scale(name, shape)
    # Some norms have numbers for names, but no other weight is a vector.
    is_norm = len(shape) == 1 and name.endswith(".weight")
    return 1 + 0.2 * noise if is_norm else scale * noise


def _scale(name: str, shape: tuple[int, ...]) -> float:
    fan_in = math.prod(shape[1:])
    if name.endswith(".bias"):
        return 0.2
    # Trained embeddings are small before the first normalization, and so an epsilon matters.
    if "embed_tokens" in name or name.endswith(("class_embedding", "position_embedding.weight")):
        return 0.04
    if "patch_embedding" in name or name.endswith(".block.0.0.weight"):
        return 0.1 / math.sqrt(fan_in)
    if name == "lm_head.weight":
        return 2 / math.sqrt(fan_in)
    # Wide enough to reach both ends of the hard sigmoid.
    if name.endswith("fc2.weight") and "mb_block" in name:
        return 3 / math.sqrt(fan_in)
    return 1 / math.sqrt(fan_in)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2))
