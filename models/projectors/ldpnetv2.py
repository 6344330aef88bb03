"""LDPv2, the projector of MobileVLM V2 (arXiv 2402.03766, section 3.3).

The same two linear layers, average pooling to a 12x12 grid, and a depthwise convolution around a
skip that tells the tokens where they are.
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import ProjectorConfig
from mvlm.models.layers import DepthwiseConvolution, Linear
from mvlm.models.weight_layout import LinearFormat

POOLED_GRID = 12


class LDPNetV2(nn.Module):
    """``(1, grid^2, in)`` to ``(1, 144, out)``."""

    def __init__(self, config: ProjectorConfig, grid: int, linear_format: LinearFormat) -> None:
        name, width = "model.mm_projector", config.out_features
        self.grid = grid
        self.first = Linear(
            (f"{name}.mlp.mlp.0",), config.in_features, width, linear_format, bias=True
        )
        self.second = Linear((f"{name}.mlp.mlp.2",), width, width, linear_format, bias=True)
        self.positions = DepthwiseConvolution(f"{name}.peg.peg.0", width, POOLED_GRID, bias=True)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Project, pool and inject positions."""
        x = self.second(self.first(x), prologue=ops.GELU)
        x = self._pool(x)
        return x + self.positions(x)

    def _pool(self, x: nn.Tensor) -> nn.Tensor:
        """Average each token of the 12x12 grid from the patches that it covers."""
        if self.grid == POOLED_GRID:
            return x
        return nn.op.tensor_expr_op(
            lambda tokens: pooled(tokens, self.grid, POOLED_GRID), "pool", [x]
        )


def pooled(x: te.Tensor, grid: int, out_grid: int) -> te.Tensor:
    """Return the adaptive average of ``(1, grid^2, width)``: ``(1, out_grid^2, width)``.

    Output cell i covers rows ``floor(i * grid / out)`` up to ``ceil((i + 1) * grid / out)``, the
    rule of torch's AdaptiveAvgPool2d, which also holds where the cells do not divide the grid.
    """

    def window(cell: Any) -> tuple[Any, Any]:
        start = cell * grid // out_grid
        return start, ((cell + 1) * grid + out_grid - 1) // out_grid - start

    widest = max(window(cell)[1] for cell in range(out_grid))
    dy, dx = te.reduce_axis((0, widest), name="dy"), te.reduce_axis((0, widest), name="dx")

    def term(cell: tirx.Expr, channel: tirx.Expr) -> tirx.Expr:
        (y, height), (x_, length) = window(cell // out_grid), window(cell % out_grid)
        inside = tirx.all(dy < height, dx < length)
        value = x[0, (y + dy) * grid + x_ + dx, channel] / (height * length).astype("float32")
        return tirx.if_then_else(inside, value, tirx.const(0, "float32"))

    width = x.shape[2]
    return te.compute(
        (1, out_grid**2, width),
        lambda _, cell, channel: te.sum(term(cell, channel), axis=[dy, dx]),
        name="pooled",
    )
