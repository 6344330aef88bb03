"""Small models that together cover every shape that MobileVLM checkpoints come in.

Widths are multiples of 32, so that every family can also be quantized in groups of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """One kind of small model.

    Args:
        language: The decoder's keys of `config.json`.
        vision: The tower's keys of its own `config.json`; None for a model of text only.
        projector: `mm_projector_type`.
        extra: Other keys of `config.json`.
        whole_clip: Whether the tower's folder is a whole CLIP (nested configuration, text
            tensors, integer `position_ids`) and not a vision tower alone.
        legacy: The tokenizer's `legacy` key; None leaves it out.
    """

    language: Mapping[str, Any]
    vision: Mapping[str, Any] | None = None
    projector: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    whole_clip: bool = False
    legacy: bool | None = None

    @property
    def is_v2(self) -> bool:
        return self.projector is not None and "v2" in self.projector


def _language(hidden: int, inner: int, heads: int, **other: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
        **other,
    }


def _vision(hidden: int, heads: int, image: int, patch: int, **other: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": patch,
        "layer_norm_eps": 1e-5,
        "hidden_act": "quick_gelu",
        **other,
    }


FAMILIES: dict[str, Family] = {
    # MobileVLM-1.7B: heads of 64 here as in the smallest models; a 4x4 grid gives 2x2 tokens.
    "ldpnet": Family(
        language=_language(128, 256, heads=2, num_key_value_heads=2),
        vision=_vision(64, heads=4, image=56, patch=14),
        projector="ldpnet",
        whole_clip=True,
        legacy=False,
    ),
    # MobileVLM-3B: heads of 80 and the stale keys of its file; a 5x5 grid gives 3x3 tokens.
    "ldpnet_odd": Family(
        language=_language(160, 224, heads=2),
        vision=_vision(96, heads=3, image=70, patch=14),
        projector="ldpnet",
        extra={"n_head": 16, "n_query_groups": 16},
    ),
    # MobileVLM V2: heads of 128, the real 24x24 grid, the tower inside the checkpoint.
    "ldpnetv2": Family(
        language=_language(256, 352, heads=2, num_key_value_heads=2),
        vision=_vision(128, heads=2, image=96, patch=4),
        projector="ldpnetv2",
        legacy=False,
    ),
    # A 7x7 grid is pooled up to 12x12, with overlapping windows.
    "ldpnetv2_odd": Family(
        language=_language(128, 192, heads=2),
        vision=_vision(64, heads=1, image=56, patch=8),
        projector="ldpnetv2",
    ),
    # Grouped key and value heads; the smallest image; a tower of several parts.
    "linear": Family(
        language=_language(256, 288, heads=4, num_key_value_heads=2),
        vision=_vision(64, heads=2, image=28, patch=14, num_hidden_layers=6),
        projector="linear",
    ),
    # The keys of MobileVLM-V2-7B (epsilon, positions), another rotary base, exact GELU in the
    # tower.
    "mlp2x_gelu": Family(
        language=_language(
            160,
            256,
            heads=2,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            rope_theta=50000.0,
            max_position_embeddings=4096,
        ),
        vision=_vision(96, heads=2, image=56, patch=8, hidden_act="gelu"),
        projector="mlp2x_gelu",
    ),
    # Pixels beyond the last whole patch, the class token kept, the tower's last layer, heads
    # wider than hidden size / heads.
    "mlp3x_gelu": Family(
        language=_language(128, 192, heads=2, num_key_value_heads=2, head_dim=128),
        vision=_vision(64, heads=4, image=45, patch=14),
        projector="mlp3x_gelu",
        extra={"mm_vision_select_feature": "cls_patch", "mm_vision_select_layer": -1},
    ),
    # MobileLLaMA.
    "text": Family(language=_language(128, 256, heads=2, num_key_value_heads=2), legacy=False),
}
