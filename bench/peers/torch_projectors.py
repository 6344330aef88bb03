"""Both LDPs as torch modules, with the checkpoint's tensor names."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mvlm.training.model.ldp import Ldp

_GRID = 12  # LDPv2 pools to so many tokens a side


class Ldpv1(nn.Module):
    """LDP (MobileVLM, section 3.4), which checkpoints keep below `model`."""

    def __init__(self, vision_width: int, hidden: int) -> None:
        super().__init__()
        self.model = Ldp(vision_width, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, patches, vision width) to (batch, patches / 4, hidden)."""
        found: Tensor = self.model(features)
        return found


class Ldpv2(nn.Module):
    """LDPv2 (MobileVLM V2, section 3.3): MLP, average pooling, a convolution for places."""

    def __init__(self, vision_width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict(
            {
                "mlp": nn.Sequential(
                    nn.Linear(vision_width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
                )
            }
        )
        taps = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.peg = nn.ModuleDict({"peg": nn.Sequential(taps)})

    def forward(self, features: Tensor) -> Tensor:
        """(batch, patches, vision width) to (batch, 144, hidden)."""
        tokens = self.mlp["mlp"](features)
        batch, count, channels = tokens.shape
        side = round(count**0.5)
        grid = tokens.transpose(1, 2).reshape(batch, channels, side, side)
        pooled = F.adaptive_avg_pool2d(grid, (_GRID, _GRID))
        placed: Tensor = torch.add(pooled, self.peg["peg"](pooled))
        return placed.flatten(2).transpose(1, 2)


PROJECTORS: dict[str, type[Ldpv1] | type[Ldpv2]] = {"ldpnet": Ldpv1, "ldpnetv2": Ldpv2}
