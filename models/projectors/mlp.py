"""The projectors of LLaVA that the official code also knows: `linear` and `mlpNx_gelu`."""

from __future__ import annotations

from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import ProjectorConfig
from mvlm.models.layers import Linear
from mvlm.models.weight_layout import LinearFormat


class MLP(nn.Module):
    """`depth` linear layers with exact GELUs between them; every patch stays a token."""

    def __init__(self, config: ProjectorConfig, grid: int, linear_format: LinearFormat) -> None:
        del grid  # works on each token alone
        name, width = "model.mm_projector", config.out_features
        # torch's Sequential counts the activations, so the linear layers are the even ones; a
        # single linear layer is not in a Sequential at all.
        names = (
            [name] if config.kind == "linear" else [f"{name}.{2 * i}" for i in range(config.depth)]
        )
        widths = [config.in_features] + [width] * (len(names) - 1)
        self.layers = nn.ModuleList(
            [
                Linear((source,), inputs, width, linear_format, bias=True)
                for source, inputs in zip(names, widths, strict=True)
            ]
        )

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Map ``(1, tokens, in)`` to ``(1, tokens, out)``."""
        for index, layer in enumerate(self.layers):
            x = layer(x, prologue=ops.GELU if index else ops.IDENTITY)
        return x
