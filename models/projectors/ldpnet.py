"""LDP, MobileVLM's lightweight downsample projector (paper, section 3.4).

Two linear layers around an exact GELU, then, on the patch grid, two MobileNetV3 blocks without
expansion, the second with stride 2. The paper's equation 3 leaves the Hardswish and the
squeeze-excite out that the released weights have; they are here.
"""

from __future__ import annotations

from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import ProjectorConfig
from mvlm.models.layers import ACTIVATIONS, DepthwiseConvolution, LayerNorm, Linear
from mvlm.models.weight_layout import LinearFormat

_NORM_EPS = 1e-5


class LDPNet(nn.Module):
    """``(1, grid^2, in)`` to ``(1, ceil(grid / 2)^2, out)``."""

    def __init__(self, config: ProjectorConfig, grid: int, linear_format: LinearFormat) -> None:
        name, width = "model.mm_projector.model", config.out_features
        self.first = Linear((f"{name}.mlp.1",), config.in_features, width, linear_format, bias=True)
        self.second = Linear((f"{name}.mlp.3",), width, width, linear_format, bias=True)
        self.same = InvertedResidual(f"{name}.mb_block.1.block", config, grid, 1, linear_format)
        self.down = InvertedResidual(f"{name}.mb_block.2.block", config, grid, 2, linear_format)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Project and halve the grid."""
        x = self.second(self.first(x), prologue=ops.GELU)
        return self.down(self.same(x))


class InvertedResidual(nn.Module):
    """MobileNetV3's block (Howard et al. 2019, figure 4) with LayerNorm for BatchNorm."""

    def __init__(
        self,
        name: str,
        config: ProjectorConfig,
        grid: int,
        stride: int,
        linear_format: LinearFormat,
    ) -> None:
        channels = config.out_features
        self.has_residual = stride == 1
        self.depthwise = DepthwiseConvolution(f"{name}.0.0", channels, grid, stride=stride)
        self.norm1 = LayerNorm(f"{name}.0.1", channels, _NORM_EPS)
        self.squeeze_excite = SqueezeExcite(f"{name}.1", config, linear_format)
        self.pointwise = Linear((f"{name}.2.0",), channels, channels, linear_format, bias=False)
        self.norm2 = LayerNorm(f"{name}.2.1", channels, _NORM_EPS)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Map ``(1, tokens, C)`` to ``(1, tokens / stride^2, C)``."""
        y = ACTIVATIONS["hardswish"](self.norm1(self.depthwise(x)))
        y = self.norm2(self.pointwise(self.squeeze_excite(y)))
        return x + y if self.has_residual else y


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu et al. 2018)."""

    def __init__(self, name: str, config: ProjectorConfig, linear_format: LinearFormat) -> None:
        channels, squeezed = config.out_features, config.squeeze_channels
        self.reduce = Linear((f"{name}.fc1",), channels, squeezed, linear_format, bias=True)
        self.expand = Linear((f"{name}.fc2",), squeezed, channels, linear_format, bias=True)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Scale ``(1, tokens, C)``."""
        tokens = x.shape[1]
        mean = nn.op.sum(x, axis=1, keepdims=True) * (1.0 / tokens)
        gate = self.expand(ACTIVATIONS["relu"](self.reduce(mean)))
        return x * ACTIVATIONS["hardsigmoid"](gate)
