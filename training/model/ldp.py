"""The lightweight downsample projector, LDP (MobileVLM paper, section 3.4), as released.

The released weights have a Hardswish and a squeeze-excite that the paper's Eq. 3 leaves out.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = squeeze_channels(channels)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.fc2(scale))


def squeeze_channels(channels: int) -> int:
    """A quarter of the channels, rounded to a multiple of 8 as MobileNetV3 does."""
    quarter = channels // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded


class _InvertedResidual(nn.Module):
    """MobileNetV3's block without expansion: depthwise 3x3, squeeze-excite, pointwise 1x1."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        self.block = nn.Sequential(
            nn.Sequential(depthwise, _ChannelNorm(channels, eps=1e-5), nn.Hardswish()),
            _SqueezeExcite(channels),
            nn.Sequential(
                nn.Conv2d(channels, channels, 1, bias=False), _ChannelNorm(channels, eps=1e-5)
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class Ldp(nn.Module):
    """(batch, n * n, vision width) patch features -> (batch, n * n / 4, hidden) image tokens."""

    def __init__(self, vision_width: int, hidden: int) -> None:
        super().__init__()
        # Index 0 is an identity in the release, which is why names start at mlp.1.
        self.mlp = nn.Sequential(
            nn.Identity(), nn.Linear(vision_width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.mb_block = nn.Sequential(
            nn.Identity(), _InvertedResidual(hidden, 1), _InvertedResidual(hidden, 2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Runs the projector; patches are row-major on a square grid."""
        x: Tensor = self.mlp(features)
        batch, patches, channels = x.shape
        grid = round(patches**0.5)
        # The layout (batch, row, column, channel) in memory is what torch calls channels-last.
        x = x.view(batch, grid, grid, channels).permute(0, 3, 1, 2)
        x = self.mb_block(x)
        return x.permute(0, 2, 3, 1).reshape(batch, -1, channels)
