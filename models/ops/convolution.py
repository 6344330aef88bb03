"""Depthwise 3x3 convolution over patch tokens, channels last."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import call, define, placeholders
from mvlm.models.ops.signatures import DepthwiseConvolutionSignature
from mvlm.models.ops.signatures.convolution import KERNEL


def depthwise_convolution(x: nn.Tensor, weight: nn.Tensor, grid: int, stride: int) -> nn.Tensor:
    """Convolve each channel of a square grid of tokens with its own 3x3 kernel, padding 1.

    Channels stay last, so that the tokens' order is the grid's and neighbouring channels lie side
    by side for the vectors.

    Args:
        x: ``(1, grid * grid, C)`` float32, row by row.
        weight: ``(9, C)`` float32: the kernel's taps, row by row.
        grid: Tokens along a side.
        stride: 1 or 2.

    Returns:
        ``(1, ceil(grid / stride) ** 2, C)`` float32.
    """
    op = DepthwiseConvolutionSignature(grid, x.shape[2], stride)
    flat = nn.op.reshape(x, (grid, grid, op.channels))
    arguments = {"x": flat, "weight": weight}
    (y,) = call(convolution_definition(op), op, "depthwise_convolution", arguments)
    return nn.op.reshape(y, (1, op.out_grid * op.out_grid, op.channels))


def convolution_definition(op: DepthwiseConvolutionSignature) -> tirx.PrimFunc:
    """Return the definition."""
    grid, stride, out_grid = op.grid, op.stride, op.out_grid
    inputs = placeholders(op)
    x, weight = inputs["x"], inputs["weight"]

    def tap(row: tirx.Expr, column: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
        inside = tirx.all(row >= 0, row < grid, column >= 0, column < grid)
        return tirx.if_then_else(inside, x[row, column, c], tirx.const(0, "float32"))

    def value(row: tirx.Expr, column: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
        total = tirx.const(0, "float32")
        for dy in range(KERNEL):
            for dx in range(KERNEL):
                there = tap(row * stride + dy - 1, column * stride + dx - 1, c)
                total = total + there * weight[dy * KERNEL + dx, c]
        return total

    y = te.compute((out_grid, out_grid, op.channels), value, name="y")
    return define(op, inputs, y)
