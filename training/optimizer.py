"""The optimizer: Muon for the matrices inside the transformers, AdamW for everything else.

Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of
a matrix by the nearest orthogonal matrix, found with a Newton-Schulz iteration. Scaled as in
"Muon is Scalable for LLM Training" (2025), one learning rate suits both optimizers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(stack: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, to a stack (n, rows, columns)."""
    a, b, c = NEWTON_SCHULZ
    tall = stack.shape[1] > stack.shape[2]
    x: Tensor = stack.transpose(1, 2) if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class MuonAdamW:
    """Two optimizers behind one `step(lr)`; `matrices` go to Muon, `others` to AdamW."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter],
        momentum: float = 0.95, weight_decay: float = 0.02,
    ) -> None:  # fmt: skip
        self.momentum, self.weight_decay = momentum, weight_decay
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for weight in matrices:
            groups[weight.shape].append(weight)
        self.groups = list(groups.values())
        self.velocity = [torch.zeros(len(g), *g[0].shape) for g in self.groups]
        self.adam = torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=weight_decay)

    def step(self, lr: float) -> None:
        """One update with learning rate `lr`; clears the gradients."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weights, velocity in zip(self.groups, self.velocity, strict=True):
                self._muon(weights, velocity, lr)

    def _muon(self, weights: list[nn.Parameter], velocity: Tensor, lr: float) -> None:
        # A weight without a gradient is at rest: it is not even decayed.
        gradient = torch.stack(
            [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
        )
        velocity.lerp_(gradient, 1 - self.momentum)
        update = orthogonalize(gradient.lerp(velocity, self.momentum))
        size = 0.2 * max(velocity.shape[1:]) ** 0.5
        for weight, change in zip(weights, update, strict=True):
            if weight.grad is None:
                continue
            weight.mul_(1 - lr * self.weight_decay).add_(change, alpha=-lr * size)
            weight.grad = None


def optimizer_for(*modules: nn.Module) -> MuonAdamW:
    """Sorts the trainable parameters of the modules into the two kinds."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                inner = weight.dim() == 2 and "embed" not in name and "lm_head" not in name
                (matrices if inner else others).append(weight)
    return MuonAdamW(matrices, others)
