"""The tensors of a release: the model's own and those that come along unused, in file order."""

from __future__ import annotations

from collections.abc import Iterator

from mvlm.models.checkpoint.names import (
    CLIP_PREFIX,
    TOWER_PREFIX,
    Shape,
    language_tensors,
    projector_tensors,
    tower_tensors,
)
from mvlm.models.config.clip import ClipVisionConfig
from mvlm.models.config.llama import LlamaConfig
from mvlm.models.config.projector import ProjectorConfig
from mvlm.models.config.tower import V2_TOWER_PREFIX
from mvlm.models.weight_files.tensor_file import TensorInfo

Tensors = dict[str, TensorInfo]

# The text half of CLIP ViT-L/14: width, layers, vocabulary and positions.
_TEXT_WIDTH, _TEXT_LAYERS, _TEXT_VOCABULARY, _TEXT_POSITIONS = 768, 12, 49_408, 77


def mobilevlm_tensors(
    decoder: LlamaConfig, projector: ProjectorConfig | None, tower: ClipVisionConfig | None
) -> Tensors:
    """Return what a MobileLLaMA's or MobileVLM's own folder holds, in bfloat16.

    Args:
        decoder: The decoder.
        projector: None for a model of text only.
        tower: The tower inside, as a V2 has it; None where it lies elsewhere.
    """
    language = dict(language_tensors(decoder))
    head = {name: language.pop(name) for name in ("lm_head.weight",) if name in language}
    shapes = language
    if tower is not None:
        for name, shape in _whole_tower(tower):
            shapes[V2_TOWER_PREFIX + name] = shape
    if projector is not None:
        shapes |= dict(projector_tensors(projector))
    return {name: TensorInfo(shape, "bfloat16") for name, shape in (shapes | head).items()}


def clip_tensors(tower: ClipVisionConfig) -> Tensors:
    """Return what the folder of a whole CLIP holds: float32, and positions as int64."""
    tensors = {"logit_scale": TensorInfo((), "float32")}
    for name, shape in _text_half():
        tensors[name] = TensorInfo(shape, "float32")
    tensors["text_model.embeddings.position_ids"] = TensorInfo((1, _TEXT_POSITIONS), "int64")
    for name, shape in _whole_tower(tower):
        tensors[CLIP_PREFIX + name] = TensorInfo(shape, "float32")
    positions = TensorInfo((1, tower.num_patches + 1), "int64")
    tensors[f"{CLIP_PREFIX}embeddings.position_ids"] = positions
    tensors["visual_projection.weight"] = TensorInfo((_TEXT_WIDTH, tower.hidden_size), "float32")
    tensors["text_projection.weight"] = TensorInfo((_TEXT_WIDTH, _TEXT_WIDTH), "float32")
    return tensors


def _whole_tower(config: ClipVisionConfig) -> Iterator[tuple[str, Shape]]:
    """All layers and the last LayerNorm, which MobileVLM never uses, below `vision_model.`."""
    for name, shape in tower_tensors(config, config.num_hidden_layers):
        yield name.removeprefix(TOWER_PREFIX), shape
    yield "post_layernorm.weight", (config.hidden_size,)
    yield "post_layernorm.bias", (config.hidden_size,)


def _text_half() -> Iterator[tuple[str, Shape]]:
    width, inner = _TEXT_WIDTH, 4 * _TEXT_WIDTH
    yield "text_model.embeddings.token_embedding.weight", (_TEXT_VOCABULARY, width)
    yield "text_model.embeddings.position_embedding.weight", (_TEXT_POSITIONS, width)
    for index in range(_TEXT_LAYERS):
        layer = f"text_model.encoder.layers.{index}."
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield f"{layer}self_attn.{projection}.weight", (width, width)
            yield f"{layer}self_attn.{projection}.bias", (width,)
        for name, rows, columns in (("mlp.fc1", inner, width), ("mlp.fc2", width, inner)):
            yield f"{layer}{name}.weight", (rows, columns)
            yield f"{layer}{name}.bias", (rows,)
        for name in ("layer_norm1", "layer_norm2"):
            yield f"{layer}{name}.weight", (width,)
            yield f"{layer}{name}.bias", (width,)
    yield "text_model.final_layer_norm.weight", (width,)
    yield "text_model.final_layer_norm.bias", (width,)
