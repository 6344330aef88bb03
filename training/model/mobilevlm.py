"""MobileVLM V1: tower, projector and decoder, with the released tensor names."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mvlm.training.model.clip import ClipConfig, ClipTower
from mvlm.training.model.ldp import Ldp
from mvlm.training.model.llama import Linear, Llama, LlamaConfig

#: Embeddings start about as large as image tokens are, so that a layer adds to them instead of
#: drowning them; and the head as a fraction of them that gives logits of about 1.
EMBEDDING_STD = 0.5
HEAD_SCALE = 0.15


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of all three parts."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    llama: LlamaConfig = field(default_factory=LlamaConfig)

    @property
    def image_tokens(self) -> int:
        """Tokens that an image takes in the prompt."""
        return self.clip.grid**2 // 4


class _Projector(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = Ldp(config.clip.width, config.llama.hidden)

    def forward(self, features: Tensor) -> Tensor:
        return self.model(features)  # type: ignore[no-any-return]


class _Body(Llama):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.llama)
        self.mm_projector = _Projector(config)


class MobileVlm(nn.Module):
    """Projector and decoder; the tower is a checkpoint of its own, as in the V1 releases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = Linear(config.llama.hidden, config.llama.vocab_size)
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and "mm_projector" not in name:
                nn.init.normal_(
                    weight, std=EMBEDDING_STD if "embed" in name else weight.shape[1] ** -0.5
                )
        for layer in self.model.layers:  # residual branches start small
            for last in (layer.self_attn.o_proj, layer.mlp.down_proj):  # type: ignore[union-attr]
                nn.init.normal_(last.weight, std=0.3 * last.weight.shape[1] ** -0.5)  # type: ignore

    @torch.no_grad()
    def head_from_embeddings(self) -> None:
        """Starts the output head from the embeddings: what a token looks like is what it says."""
        self.lm_head.weight.copy_(self.model.embed_tokens.weight * HEAD_SCALE)

    def fake_quantize_4bit(self, on: bool) -> None:
        """Switches 4-bit rounding of the decoder's matrices on or off in the forward pass."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.fake_quantize_4bit = on


def build(config: ModelConfig, seed: int) -> tuple[ClipTower, MobileVlm]:
    """A freshly initialised tower and model."""
    torch.manual_seed(seed)
    return ClipTower(config.clip), MobileVlm(config)
