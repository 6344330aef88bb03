"""CLIP's vision transformer (`CLIPVisionModel`), tensor for tensor as Hugging Face stores it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

#: quick_gelu(x) = x * sigmoid(QUICK * x) = silu(QUICK * x) / QUICK
QUICK = 1.702
#: How strong positions are relative to the embedded patches, whose numbers are about 0.6.
POSITION_SCALE = 0.4


@dataclass(frozen=True)
class ClipConfig:
    """The sizes of the tower; `layers` counts the last one, whose output MobileVLM never uses."""

    image_size: int = 144
    patch_size: int = 12
    width: int = 128
    heads: int = 2
    layers: int = 7

    def __post_init__(self) -> None:
        if self.image_size % (2 * self.patch_size):
            raise ValueError("the patch grid must be even, so that the projector can halve it")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


def sinusoids(grid: int, width: int) -> Tensor:
    """Sines and cosines of column and row, half a wave to 3/8 waves per patch: (grid^2, width).

    Learned from nothing, places take hundreds of steps to appear in the features.
    """
    frequencies = torch.exp(torch.linspace(math.log(0.5), math.log(0.75 * grid), width // 4))
    at = math.pi * (torch.arange(grid) + 0.5)[:, None] / grid * frequencies
    along = torch.cat([at.sin(), at.cos()], 1)
    columns, rows = along.expand(grid, -1, -1), along[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], -1).reshape(grid**2, width)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.grid, self.patch = config.grid, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(config.width) * 0.02)
        self.patch_embedding = nn.Conv2d(
            3, config.width, config.patch_size, config.patch_size, bias=False
        )
        self.position_embedding = nn.Embedding(config.grid**2 + 1, config.width)
        with torch.no_grad():
            self.position_embedding.weight[0] = 0
            self.position_embedding.weight[1:] = POSITION_SCALE * sinusoids(
                config.grid, config.width
            )

    def forward(self, pixels: Tensor) -> Tensor:
        batch = pixels.shape[0]
        # A stride-sized convolution is one matrix product over flattened patches: faster on a CPU.
        patches = pixels.reshape(batch, 3, self.grid, self.patch, self.grid, self.patch)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.grid**2, -1)
        embedded = F.linear(patches, self.patch_embedding.weight.flatten(1))
        first = self.class_embedding.expand(batch, 1, -1)
        return torch.cat([first, embedded], 1) + self.position_embedding.weight


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self._start_alike()

    @torch.no_grad()
    def _start_alike(self) -> None:
        """Queries equal to keys, and an output that takes back a part of what is read.

        After "Mimetic Initialization of Self-Attention Layers" (Trockman and Kolter, 2023): each
        patch starts by looking at patches near it, as it would in a trained tower.
        """
        width = self.q_proj.in_features
        for head in self.q_proj.weight.chunk(self.heads):
            head.copy_(torch.linalg.qr(torch.randn(width, width // self.heads))[0].T * 1.25)
        self.k_proj.weight.copy_(self.q_proj.weight)
        nn.init.orthogonal_(self.v_proj.weight, 0.7)
        self.out_proj.weight.copy_(-0.57 * self.v_proj.weight.T)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat([p.weight for p in parts])
        bias = torch.cat([p.bias for p in parts])
        qkv = F.linear(x, weight, bias).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))  # type: ignore[no-any-return]


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        # The factors are folded into the small weights, not applied to the large activations.
        hidden = F.silu(F.linear(x, self.fc1.weight * QUICK, self.fc1.bias * QUICK))
        return F.linear(hidden, self.fc2.weight / QUICK, self.fc2.bias)


class _Layer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=1e-5)
        self.self_attn = _Attention(config.width, config.heads)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=1e-5)
        self.mlp = _Mlp(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _VisionTransformer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=1e-5)  # sic: the released name
        self.encoder = _Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=1e-5)


class ClipTower(nn.Module):
    """The tower as MobileVLM uses it: patch features of the last layer but one."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = _VisionTransformer(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, side, side) normalised pixels -> (batch, patches, width) features."""
        model = self.vision_model
        x = model.pre_layrnorm(model.embeddings(pixels))
        for layer in list(model.encoder.layers)[:-1]:
            x = layer(x)
        return x[:, 1:]  # type: ignore[no-any-return]
