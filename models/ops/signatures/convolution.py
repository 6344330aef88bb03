"""The signature of the depthwise convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mvlm.models.ops.signatures.signature import Parameter, Signature

# A kernel's width, and its elements.
KERNEL = 3
TAPS = KERNEL * KERNEL


@dataclass(frozen=True)
class DepthwiseConvolutionSignature(Signature):
    """A 3x3 convolution of each channel, over a square grid of tokens, padding 1.

    Parameters: ``x (grid, grid, C)``, ``weight (9, C)``, ``y (out_grid, out_grid, C)``.

    Attributes:
        grid: Tokens along a side.
        channels: C.
        stride: 1 or 2.
    """

    OP: ClassVar[str] = "depthwise_convolution"

    grid: int
    channels: int
    stride: int

    @property
    def out_grid(self) -> int:
        """Tokens along a side of the result."""
        return -(-self.grid // self.stride)

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        shape = (self.out_grid, self.out_grid, self.channels)
        return (
            Parameter("x", (self.grid, self.grid, self.channels), "float32"),
            Parameter("weight", (TAPS, self.channels), "float32"),
            Parameter("y", shape, "float32", is_written=True),
        )
