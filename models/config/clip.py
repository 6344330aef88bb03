"""The configuration of the CLIP vision tower."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mvlm.models.config.key_check import check_keys, refuse_quantized
from mvlm.models.config.keys import CLIP, CLIP_TOWER
from mvlm.models.json_config import JsonConfig, check_choice, check_integer, check_number
from mvlm.runtime.errors import ConfigError

# What transformers' CLIPVisionConfig fills in for absent keys: the ViT-B/32 of the CLIP paper.
# Published CLIP files leave out what equals it.
_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
# Where a whole CLIP describes its tower, now and before.
_NESTED = ("vision_config", "vision_config_dict")
_MODEL_TYPES = ("clip", "clip_vision_model")

# Every CLIP ViT that OpenAI published has attention heads of 64 channels.
_HEAD_DIM = 64


@dataclass(frozen=True)
class ClipVisionConfig:
    """A CLIP vision transformer (Radford et al. 2021), pre-norm, with a class token.

    Args:
        hidden_size: Channels of a patch token.
        intermediate_size: Channels inside a layer's MLP.
        num_hidden_layers: All layers that the checkpoint has, used or not.
        num_attention_heads: Heads of `hidden_size / num_attention_heads` channels.
        image_size: Side of the square input, in pixels.
        patch_size: Side of a patch, in pixels. Pixels beyond the last whole patch are unused.
        layer_norm_eps: Added to the variance in every LayerNorm.
        hidden_act: `quick_gelu`, x * sigmoid(1.702 x), or `gelu`, the exact (erf) one.

    Raises:
        ConfigError: A value is of the wrong type, out of range, or contradicts another.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float
    hidden_act: str

    def __post_init__(self) -> None:
        check_integer("hidden_size", self.hidden_size, 1, 2**16)
        check_integer("intermediate_size", self.intermediate_size, 1, 2**18)
        check_integer("num_hidden_layers", self.num_hidden_layers, 1, 1024)
        check_integer("num_attention_heads", self.num_attention_heads, 1, 1024)
        check_integer("image_size", self.image_size, 1, 8192)
        check_integer("patch_size", self.patch_size, 1, self.image_size)
        check_number("layer_norm_eps", self.layer_norm_eps, 1e-12, 0.1)
        check_choice("hidden_act", self.hidden_act, ("quick_gelu", "gelu"))
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                "`num_attention_heads` must divide `hidden_size`",
                expected=f"a divisor of {self.hidden_size}",
                found=self.num_attention_heads,
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patch tokens of an image, without the class token."""
        return self.grid**2


def clip_vision_config(document: JsonConfig) -> ClipVisionConfig:
    """Read a tower folder's `config.json`: of a vision tower alone, or of a whole CLIP.

    A whole CLIP keeps the tower under `vision_config`, or under `vision_config_dict`, as early
    transformers wrote it. Where the file is known to be a CLIP's, absent keys mean what
    transformers' `CLIPVisionConfig` fills in; elsewhere they are errors.

    Raises:
        ConfigError: The file is of another kind of model, a value is not usable, or the two objects
            do not agree.
    """
    refuse_quantized(document)
    model_type = document.get("model_type")
    if model_type is not None and model_type not in _MODEL_TYPES:
        document.refuse("model_type", "the configuration of a CLIP vision tower")
    sections = _sections(document)
    if not sections and model_type is None:
        return document.build(ClipVisionConfig, **{key: document.require(key) for key in _DEFAULTS})
    found = [_with_defaults(section) for section in sections or [document]]
    if found[0] != found[-1]:
        # transformers takes the second with all its defaults; the writer surely meant the first.
        document.refuse(_NESTED[-1], f"the same tower as in `{_NESTED[0]}`")
    return found[0]


def check_clip_keys(document: JsonConfig, label: str) -> tuple[str, ...]:
    """Check every key of what :func:`clip_vision_config` reads; return warnings.

    Raises:
        ConfigError: A key asks for what is not supported.
    """
    sections = _sections(document)
    if not sections:
        return check_keys(document, CLIP_TOWER, label)
    warnings = check_keys(document, CLIP, label)
    for section in sections:
        refuse_quantized(section)
        warnings += check_keys(section, CLIP_TOWER, label)
    return warnings


def _sections(document: JsonConfig) -> list[JsonConfig]:
    return [document.section(key) for key in _NESTED if key in document]


def _with_defaults(section: JsonConfig) -> ClipVisionConfig:
    fields = {key: section.get(key, default) for key, default in _DEFAULTS.items()}
    return section.build(ClipVisionConfig, **fields)


def derive_clip_vision_config(shapes: Mapping[str, tuple[int, ...]]) -> ClipVisionConfig:
    """Work the tower's configuration out from the shapes of its tensors.

    For a MobileVLM V2 checkpoint, which holds the tower's weights but not its `config.json`. What
    shapes cannot tell is taken from the CLIP that OpenAI published: heads of 64 channels,
    quick_gelu and an epsilon of 1e-5.

    Args:
        shapes: By name, the tensors below `vision_model.`.

    Raises:
        ConfigError: A tensor that is needed is absent or has an impossible shape.
    """
    hidden_size, _, patch_size, _ = _shape(shapes, "embeddings.patch_embedding.weight", 4)
    positions, _ = _shape(shapes, "embeddings.position_embedding.weight", 2)
    intermediate_size, _ = _shape(shapes, "encoder.layers.0.mlp.fc1.weight", 2)
    grid = math.isqrt(max(positions - 1, 0))
    if hidden_size % _HEAD_DIM or grid**2 + 1 != positions:
        raise ConfigError(
            "the vision tower's configuration cannot be told from its tensors",
            expected=f"channels in heads of {_HEAD_DIM}, a square of positions and a class token",
            found=f"{hidden_size} channels, {positions} positions",
            fix="Give the tower's own folder: `--vision-tower DIR`, in a matrix `vision_tower`.",
        )
    return ClipVisionConfig(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=_count_layers(shapes),
        num_attention_heads=hidden_size // _HEAD_DIM,
        image_size=grid * patch_size,
        patch_size=patch_size,
        layer_norm_eps=1e-5,
        hidden_act="quick_gelu",
    )


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, rank: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != rank:
        raise ConfigError(
            f"the checkpoint's vision tower has no usable `{name}`",
            expected=f"a tensor of rank {rank}",
            found="none" if shape is None else f"shape {shape}",
            fix="Give the tower's own folder: `--vision-tower DIR`, in a matrix `vision_tower`.",
        )
    return shape


def _count_layers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    prefix = "encoder.layers."
    indexes = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    return len(indexes)
