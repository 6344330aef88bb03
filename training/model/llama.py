"""MobileLLaMA: RMSNorm, rotary positions (halves), SwiGLU, with the tensor names of LLaMA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

HEAD_DIM = 64
ROPE_THETA = 10000.0
GROUP = 32


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of the decoder."""

    vocab_size: int = 800
    hidden: int = 192
    ffn: int = 512
    layers: int = 5
    max_positions: int = 1024
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, value, unit in (("hidden", self.hidden, HEAD_DIM), ("ffn", self.ffn, GROUP)):
            if value % unit:
                raise ValueError(f"{name} must be a multiple of {unit}, got {value}")

    @property
    def heads(self) -> int:
        """Attention heads, which are also the key and value heads."""
        return self.hidden // HEAD_DIM


def quantize_4bit(weight: Tensor) -> Tensor:
    """The values `weight` has after symmetric 4-bit rounding in groups of 32 along its last axis.

    q = clip(round(w / s), -7, 7) with s = max |w| / 7 kept in float16 (mlc-llm's q4f16_1).
    """
    grouped = weight.reshape(weight.shape[0], -1, GROUP)
    scale = (grouped.abs().amax(-1, keepdim=True) / 7).half().float()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((grouped / safe).round().clamp(-7, 7) * scale).reshape(weight.shape)


class Linear(nn.Linear):
    """A linear layer without bias that can pretend, in training, to have 4-bit weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.fake_quantize_4bit = False

    def effective_weight(self) -> Tensor:
        """The weight, or its 4-bit value with the gradient passed straight through."""
        if not self.fake_quantize_4bit:
            return self.weight
        return self.weight + (quantize_4bit(self.weight) - self.weight).detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return F.linear(x, self.effective_weight())


class _RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotary_table(max_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (positions, HEAD_DIM); both halves hold the same angles."""
    frequencies = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.arange(max_positions, dtype=torch.float64)[:, None] * frequencies
    angles = torch.cat([angles, angles], -1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates (batch, heads, length, HEAD_DIM) by tables (batch or 1, 1, length, HEAD_DIM)."""
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


KeysValues = tuple[Tensor, Tensor]


class _Attention(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = Linear(config.hidden, config.hidden)
        self.k_proj = Linear(config.hidden, config.hidden)
        self.v_proj = Linear(config.hidden, config.hidden)
        self.o_proj = Linear(config.hidden, config.hidden)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        batch, length, hidden = x.shape
        parts = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat([p.effective_weight() for p in parts])
        qkv = F.linear(x, weight).view(batch, length, 3, self.heads, HEAD_DIM)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k = torch.cat([past[0].expand(batch, -1, -1, -1), k], 2)
            v = torch.cat([past[1].expand(batch, -1, -1, -1), v], 2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, hidden)), (k, v)


class _Mlp(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden, config.ffn)
        self.up_proj = Linear(config.hidden, config.ffn)
        self.down_proj = Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class _Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = _RmsNorm(config.hidden, config.norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _RmsNorm(config.hidden, config.norm_eps)
        self.mlp = _Mlp(config)


class Llama(nn.Module):
    """The decoder body: `embed_tokens`, `layers`, `norm`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = _RmsNorm(config.hidden, config.norm_eps)
        cos, sin = rotary_table(config.max_positions)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        past: list[KeysValues] | None = None,
        states: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Runs the layers over embeddings.

        x: (batch, length, hidden); positions: (batch or 1, length) int64; mask: (batch, 1,
        length, past + length), True where a query may look, None for plain causal attention;
        past: keys and values of what came before, whose batch may be 1. Returns the normed
        hidden states and, per layer, all keys and values. `states` is given the hidden states
        after each layer.
        """
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # type: ignore[index]
        kept = []
        for index, layer in enumerate(self.layers):
            before = None if past is None else past[index]
            mixed, pair = layer.self_attn(layer.input_layernorm(x), cos, sin, mask, before)  # type: ignore[operator]
            x = x + mixed
            x = x + layer.mlp(layer.post_attention_layernorm(x))  # type: ignore[operator]
            kept.append(pair)
            if states is not None:
                states.append(x)
        return self.norm(x), kept
