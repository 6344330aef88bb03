"""Depthwise 3x3 convolution over patch tokens, channels last."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define

KERNEL = 3


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
    channels = x.shape[2]
    out_grid = -(-grid // stride)
    function = _depthwise(grid, channels, stride)
    flat = nn.op.reshape(x, (grid, grid, channels))
    out = nn.Tensor.placeholder((out_grid, out_grid, channels), "float32")
    y = nn.op.tensor_ir_op(function, "depthwise_convolution", [flat, weight], out)
    return nn.op.reshape(y, (1, out_grid * out_grid, channels))


def _depthwise(grid: int, channels: int, stride: int) -> tirx.PrimFunc:
    out_grid = -(-grid // stride)
    x = te.placeholder((grid, grid, channels), "float32", name="x")
    weight = te.placeholder((KERNEL * KERNEL, channels), "float32", name="weight")

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

    y = te.compute((out_grid, out_grid, channels), value, name="y")
    return define("depthwise_convolution", [x, weight, y], stride=stride)
