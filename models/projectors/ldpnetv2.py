"""LDPv2, the projector of MobileVLM V2 (arXiv 2402.03766, section 3.3).

The same two linear layers, average pooling to a 12x12 grid, and a depthwise convolution around a
skip that tells the tokens where they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tvm.relax.frontend import nn

from mvlm.models.config import ProjectorConfig
from mvlm.models.layers import ACTIVATIONS, DepthwiseConvolution, Linear
from mvlm.models.quantization import Scheme

POOLED_GRID = 12


class LDPNetV2(nn.Module):
    """``(1, grid^2, in)`` to ``(1, 144, out)``."""

    def __init__(self, config: ProjectorConfig, grid: int, scheme: Scheme) -> None:
        name, width = "model.mm_projector", config.out_features
        self.grid = grid
        self.first = Linear((f"{name}.mlp.mlp.0",), config.in_features, width, scheme, bias=True)
        self.second = Linear((f"{name}.mlp.mlp.2",), width, width, scheme, bias=True)
        self.positions = DepthwiseConvolution(f"{name}.peg.peg.0", width, POOLED_GRID, bias=True)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Project, pool and inject positions."""
        x = self.second(ACTIVATIONS["gelu"](self.first(x)))
        x = self._pool(x)
        return x + self.positions(x)

    def _pool(self, x: nn.Tensor) -> nn.Tensor:
        """Average each token of the 12x12 grid from the patches that it covers."""
        if self.grid == POOLED_GRID:
            return x
        _, patches, width = x.shape
        pooling = nn.Tensor.from_const(pooling_matrix(self.grid, POOLED_GRID))
        pooled = nn.op.matmul(pooling, nn.op.reshape(x, (patches, width)))
        return nn.op.reshape(pooled, (1, POOLED_GRID**2, width))


def pooling_matrix(grid: int, out_grid: int) -> npt.NDArray[np.float32]:
    """Return adaptive average pooling as a matrix ``(out_grid^2, grid^2)``.

    Output cell i covers rows ``floor(i * grid / out)`` up to ``ceil((i + 1) * grid / out)``, the
    rule of torch's AdaptiveAvgPool2d, which also holds where the cells do not divide the grid.
    """
    along = np.zeros((out_grid, grid))
    for cell in range(out_grid):
        start, stop = cell * grid // out_grid, -(-(cell + 1) * grid // out_grid)
        along[cell, start:stop] = 1 / (stop - start)
    return np.kron(along, along).astype(np.float32)
