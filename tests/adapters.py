"""Adapters that peft itself writes, and what their tensors are when peft or we have merged them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mvlm.models.checkpoint import Checkpoint, expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# Sums of a rank's products, in float32 here and there, in another order.
TOLERANCE = 2e-6


def load_base(checkpoint: Path) -> Any:
    """Load a checkpoint of text as transformers' model."""
    return transformers.LlamaForCausalLM.from_pretrained(
        checkpoint, torch_dtype=torch.float32
    ).eval()


def train(model: nn.Module, seed: int = 0) -> None:
    """Give every tensor of an adapter random values, as training would."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name or "modules_to_save" in name:
                parameter.mul_(1.2)
            elif "lora_" in name and "sampler" not in name:
                parameter.normal_(std=0.3)
            elif name.endswith(".bias") and parameter.requires_grad:
                parameter.add_(0.5)


def write_adapter(checkpoint: Path, folder: Path, seed: int = 0, **options: Any) -> Any:
    """Let peft write an adapter with random weights, and return its model."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | options)
    model = peft.get_peft_model(load_base(checkpoint), config)
    train(model, seed)
    model.save_pretrained(folder)
    return model.eval()


def opened(checkpoint: Path, adapter: Path) -> Checkpoint:
    """Open a checkpoint with an adapter, and check both."""
    found = open_checkpoint(checkpoint, adapter=adapter)
    found.check(expected_tensors(read_config(checkpoint))).raise_if_bad()
    return found


def logits(model: Any) -> Tensor:
    """The logits of a few tokens, (1, 7, vocabulary)."""
    with torch.no_grad():
        return model.eval()(torch.tensor([[1, 5, 9, 300, 17, 5, 2]])).logits


def our_logits(checkpoint: Path, adapter: Path) -> Tensor:
    """The same of transformers' model with the tensors that we read and merge."""
    found = opened(checkpoint, adapter)
    model = load_base(checkpoint)
    names = expected_tensors(read_config(checkpoint))
    values = {name: torch.from_numpy(found.read(name).astype(np.float32)) for name in names}
    model.load_state_dict(values)
    found.check_adapter_used()
    return logits(model)


def edit(adapter: Path, **changes: Any) -> None:
    """Change keys of an adapter's configuration."""
    path = adapter / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(adapter: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change an adapter's tensors."""
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, adapter / WEIGHTS)


def module_tree(tensors: dict[str, Tensor]) -> nn.Module:
    """Modules of the names that tensors have, for peft to wrap; nothing can be computed with it.

    Matrices are linear layers (tables of a name that ends in `embedding` are embeddings), kernels
    convolutions, depthwise where a kernel has one input; other tensors are plain parameters.
    """
    root = nn.Module()
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = root
        for part in path.split(".")[:-1]:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        last = path.rpartition(".")[2]
        if leaf == "weight" and tensor.ndim > 1:
            module.add_module(last, _layer(last, tensor, f"{path}.bias" in tensors))
        elif not hasattr(module, last):
            module.add_module(last, nn.Module())
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        setattr(root.get_submodule(path), leaf, nn.Parameter(tensor.clone(), requires_grad=False))
    return root


def _layer(name: str, weight: Tensor, bias: bool) -> nn.Module:
    out, width = weight.shape[:2]
    if weight.ndim == 4:
        kernel = (weight.shape[2], weight.shape[3])
        groups = out if width == 1 else 1
        return nn.Conv2d(width * groups, out, kernel, groups=groups, bias=bias)
    if name.endswith("embedding") or name == "embed_tokens":
        return nn.Embedding(out, width)
    return nn.Linear(width, out, bias=bias)


TOWER = "vision_tower.vision_model."
# Where MobileVLM's class has the tower.
TRAINED_TOWER = "model.vision_tower.vision_tower.vision_model."


def model_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """All tensors of a MobileVLM by the names that its class has for them."""
    found = open_checkpoint(checkpoint)
    names = [name for name in found.names() if "position_ids" not in name]
    return {
        name.replace(TOWER, TRAINED_TOWER): torch.from_numpy(found.read(name).astype(np.float32))
        for name in names
        if name.startswith((TOWER, "model.", "lm_head."))
    }


def write_mobilevlm_adapter(checkpoint: Path, folder: Path, **options: Any) -> Any:
    """Let peft write an adapter of a whole MobileVLM, and return its model."""
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | options)
    model = peft.get_peft_model(module_tree(model_tensors(checkpoint)), config)
    train(model)
    model.save_pretrained(folder)
    return model


def merged_tensors(model: Any) -> dict[str, Tensor]:
    """What peft makes of its model's tensors, by the names that our reader has for them."""
    merged = model.merge_and_unload().state_dict()
    return {name.replace(TRAINED_TOWER, TOWER): tensor for name, tensor in merged.items()}
