"""The vision tower: CLIP's vision transformer (Radford et al. 2021, arXiv 2103.00020).

Pre-normalized blocks with quick_gelu behind a patch convolution without bias, a class token and
learned positions. MobileVLM takes the hidden states of the last layer but one and drops the class
token, so layers past the selected one, and the final normalization, are neither built nor loaded.
"""

from __future__ import annotations

from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import ClipVisionConfig, MobileVLMConfig
from mvlm.models.layers import Float32Params, LayerNorm, Linear
from mvlm.models.weight_layout import LinearFormat

_PREFIX = "vision_tower.vision_model"
# Layers of a part, which one function computes. An engine decodes tokens between two parts; one of
# CLIP ViT-L/14 at 336 pixels takes as long as some 64 rows of the smallest MobileLLaMA.
_LAYERS_PER_PART = 4


class VisionTower(nn.Module):
    """Images to patch features.

    Input ``(1, 3, image_size, image_size)`` float32, output ``(1, patches, hidden_size)``, with the
    class token in front where the configuration selects ``cls_patch``.
    """

    def __init__(self, config: MobileVLMConfig, linear_format: LinearFormat) -> None:
        vision = config.vision
        assert vision is not None, "a text-only model has no tower"
        self.keeps_class_token = config.select_feature == "cls_patch"
        self.embeddings = PatchEmbeddings(vision, linear_format)
        self.pre_norm = LayerNorm(
            f"{_PREFIX}.pre_layrnorm", vision.hidden_size, vision.layer_norm_eps
        )
        self.layers = nn.ModuleList(
            [
                EncoderLayer(f"{_PREFIX}.encoder.layers.{index}", vision, linear_format)
                for index in range(config.num_used_vision_layers)
            ]
        )

    @property
    def num_parts(self) -> int:
        """How many parts the layers are computed in."""
        return max(1, -(-len(self.layers) // _LAYERS_PER_PART))

    def forward(self, x: nn.Tensor, part: int) -> nn.Tensor:
        """Compute a part: the first maps normalized pixels, the last returns the features.

        The others map the states ``(1, 1 + patches, hidden_size)`` of the part before.
        """
        if part == 0:
            x = self.begin(x)
        for layer in list(self.layers)[_LAYERS_PER_PART * part : _LAYERS_PER_PART * (part + 1)]:
            x = layer(x)
        return self.end(x) if part == self.num_parts - 1 else x

    def begin(self, pixels: nn.Tensor) -> nn.Tensor:
        """Map normalized pixels to the first layer's input ``(1, 1 + patches, hidden_size)``."""
        return self.pre_norm(self.embeddings(pixels))

    def end(self, x: nn.Tensor) -> nn.Tensor:
        """Map the last layer's output to the selected features."""
        if self.keeps_class_token:
            return x
        _, patches = nn.op.split(x, [1], axis=1)
        return patches


class PatchEmbeddings(nn.Module):
    """Non-overlapping patches through a convolution, the class token and learned positions."""

    def __init__(self, config: ClipVisionConfig, linear_format: LinearFormat) -> None:
        name = f"{_PREFIX}.embeddings"
        self.config = config
        self.patch = Linear(
            (f"{name}.patch_embedding",),
            3 * config.patch_size**2,
            config.hidden_size,
            linear_format,
            bias=False,
        )
        self.learned = Float32Params(
            class_token=(f"{name}.class_embedding", (1, 1, config.hidden_size)),
            positions=(
                f"{name}.position_embedding.weight",
                (1, config.num_patches + 1, config.hidden_size),
            ),
        )

    def forward(self, pixels: nn.Tensor) -> nn.Tensor:
        """Map ``(1, 3, S, S)`` to ``(1, 1 + patches, hidden)``."""
        grid, side = self.config.grid, self.config.patch_size
        covered = grid * side
        if covered != self.config.image_size:
            # A convolution leaves the pixels out that do not fill a whole patch.
            pixels, _ = nn.op.split(pixels, [covered], axis=2)
            pixels, _ = nn.op.split(pixels, [covered], axis=3)
        x = nn.op.reshape(pixels, (3, grid, side, grid, side))
        x = nn.op.permute_dims(x, [1, 3, 0, 2, 4])
        x = self.patch(nn.op.reshape(x, (1, grid * grid, 3 * side * side)))
        return nn.op.concat([self.learned.class_token, x], dim=1) + self.learned.positions


class EncoderLayer(nn.Module):
    """Attention and an MLP, each behind a layer normalization and around a residual."""

    def __init__(self, name: str, config: ClipVisionConfig, linear_format: LinearFormat) -> None:
        hidden, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        attention = f"{name}.self_attn"
        self.heads = config.num_attention_heads
        self.activation = ops.Prologue(config.hidden_act)
        self.norm1 = LayerNorm(f"{name}.layer_norm1", hidden, eps)
        self.qkv = Linear(
            tuple(f"{attention}.{part}_proj" for part in "qkv"),
            hidden,
            3 * hidden,
            linear_format,
            bias=True,
        )
        self.out = Linear((f"{attention}.out_proj",), hidden, hidden, linear_format, bias=True)
        self.norm2 = LayerNorm(f"{name}.layer_norm2", hidden, eps)
        self.up = Linear((f"{name}.mlp.fc1",), hidden, inner, linear_format, bias=True)
        self.down = Linear((f"{name}.mlp.fc2",), inner, hidden, linear_format, bias=True)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Map ``(1, S, hidden)`` to the same shape."""
        mixed = ops.attention(self.qkv(x, prologue=self.norm1.prologue), self.heads)
        x = self.out(mixed, residual=x)
        inner = self.up(x, prologue=self.norm2.prologue)
        return self.down(inner, prologue=self.activation, residual=x)
