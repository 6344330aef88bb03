"""The reference model: transformers' CLIP and LLaMA, and the projectors of this package."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from tests.reference.projectors import project

Floats = npt.NDArray[np.float32]

# Stands for an image among token ids, as in the official code.
IMAGE_TOKEN = -200

# Largest absolute difference that two float32 implementations may have on unit-scale checkpoints:
# sums in another order move features by some 1e-6 and logits by some 1e-5, while the smallest
# mistakes known (a tanh GELU in the projector, a wrong epsilon) move them further than this.
FEATURE_TOLERANCE = 3e-5
LOGIT_TOLERANCE = 1e-4

_V2_TOWER = "model.vision_tower.vision_tower."


class Reference:
    """A checkpoint's model in torch, float32, on one image or text at a time.

    Args:
        folder: The checkpoint.
        tower: Its CLIP folder, where `mm_vision_tower` is not a path from `folder`.
    """

    def __init__(self, folder: Path, tower: Path | None = None) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        tensors = load_tensors(folder)
        self.language = _language(self.config, tensors)
        self.tower: transformers.CLIPVisionModel | None = None
        if "mm_vision_tower" in self.config:
            tower = tower or folder / self.config["mm_vision_tower"]
            self.projector = _below("model.mm_projector.", tensors)
            is_v2 = "v2" in self.config.get("mm_projector_type", "")
            self.tower = _tower(
                vision_config_of(folder, self.config, tensors, tower),
                _below(_V2_TOWER, tensors) if is_v2 else load_tensors(tower),
            )

    @torch.inference_mode()
    def vision_features(self, pixels: Floats) -> Floats:
        """The tower's tokens, (images, patches, channels), of pixels (images, 3, H, W)."""
        return self._features(pixels).numpy()

    @torch.inference_mode()
    def projector_output(self, pixels: Floats) -> Floats:
        """The images' embeddings for the decoder, (images, tokens, hidden)."""
        return self._projected(pixels).numpy()

    @torch.inference_mode()
    def embeds(self, ids: Sequence[int], pixels: Floats | None = None) -> Floats:
        """The decoder's input, (positions, hidden): each IMAGE_TOKEN replaced by an image."""
        return self._embeds(ids, pixels).numpy()

    @torch.inference_mode()
    def prefill_logits(self, ids: Sequence[int], pixels: Floats | None = None) -> Floats:
        """The logits at every position, (positions, vocabulary)."""
        embeds = self._embeds(ids, pixels)
        return self.language(inputs_embeds=embeds[None], use_cache=False).logits[0].numpy()

    def greedy(self, ids: Sequence[int], pixels: Floats | None = None, n: int = 64) -> list[int]:
        """The `n` most likely next tokens, one after the other; an end token does not end it."""
        return self.greedy_with_margin(ids, pixels, n)[0]

    @torch.inference_mode()
    def greedy_with_margin(
        self, ids: Sequence[int], pixels: Floats | None = None, n: int = 64
    ) -> tuple[list[int], float]:
        """Like `greedy`, and the smallest lead that a chosen logit had over the second.

        Tokens of two implementations must be equal only where this exceeds twice the tolerance.
        """
        tokens: list[int] = []
        margin = math.inf
        step = self.language(inputs_embeds=self._embeds(ids, pixels)[None], use_cache=True)
        while True:
            best = torch.topk(step.logits[0, -1], 2)
            tokens.append(int(best.indices[0]))
            margin = min(margin, float(best.values[0] - best.values[1]))
            if len(tokens) == n:
                return tokens, margin
            step = self.language(
                input_ids=torch.tensor([tokens[-1:]]),
                past_key_values=step.past_key_values,
                use_cache=True,
            )

    def _features(self, pixels: Floats) -> Tensor:
        assert self.tower is not None
        states = self.tower(torch.from_numpy(pixels), output_hidden_states=True).hidden_states
        chosen: Tensor = states[self.config["mm_vision_select_layer"]]
        keep_class = self.config.get("mm_vision_select_feature") == "cls_patch"
        return chosen if keep_class else chosen[:, 1:]

    def _projected(self, pixels: Floats) -> Tensor:
        kind = self.config.get("mm_projector_type", "linear")
        return project(kind, self.projector, self._features(pixels))

    def _embeds(self, ids: Sequence[int], pixels: Floats | None) -> Tensor:
        table = self.language.get_input_embeddings().weight
        images = iter(() if pixels is None else self._projected(pixels))
        parts = [next(images) if token == IMAGE_TOKEN else table[token][None] for token in ids]
        return torch.cat(parts)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """All float tensors of a folder's weight files, in float32."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    for path in sorted(folder.glob("*.bin")) if not tensors else ():
        tensors |= torch.load(path, weights_only=True)
    return {name: t.float() for name, t in tensors.items() if t.is_floating_point()}


def vision_config_of(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tower: Path | None = None,
) -> transformers.CLIPVisionConfig:
    """The tower's configuration: from its folder, or from the tensors of a V2 checkpoint."""
    tower = tower or folder / config["mm_vision_tower"]
    if tower.is_dir():
        return transformers.CLIPVisionConfig.from_pretrained(tower)
    inside = _below(_V2_TOWER + "vision_model.", tensors)
    hidden, _, patch, _ = inside["embeddings.patch_embedding.weight"].shape
    grid = math.isqrt(inside["embeddings.position_embedding.weight"].shape[0] - 1)
    layers = 1 + max(int(name.split(".")[2]) for name in inside if name.startswith("encoder."))
    return transformers.CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=inside["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        image_size=grid * patch,
        patch_size=patch,
    )


def _language(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> transformers.LlamaForCausalLM:
    known = {key: value for key, value in config.items() if not key.startswith("mm_")}
    known["torch_dtype"] = "float32"
    llama = transformers.LlamaConfig(**known)
    llama._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(llama)
    weights = {name: tensors[name] for name in model.state_dict() if name in tensors}
    if llama.tie_word_embeddings:
        weights["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    return model.eval()


def _tower(
    config: transformers.CLIPVisionConfig, tensors: Mapping[str, Tensor]
) -> transformers.CLIPVisionModel:
    config._attn_implementation = "eager"
    model = transformers.CLIPVisionModel(config)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model.eval()


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
