"""Rotary positions (RoFormer, arXiv 2104.09864), rotating halves as LLaMA does.

A position is multiplied by the rounded reciprocal of the base's power, as LLaMA does. To divide it
by the power instead changes the logits by more than 1e-4 a thousand positions on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.tirx.op import fma

# Cosines and sines.
RotaryTable = tuple[nn.Tensor, nn.Tensor]


def inverse_frequencies(head_dim: int, theta: float) -> npt.NDArray[np.float32]:
    """Return theta^(-2i/head_dim) for i below head_dim/2, rounded where LLaMA rounds it."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers


def rotary_table(positions: nn.Tensor, frequencies: npt.NDArray[np.float32]) -> RotaryTable:
    """Return the cosines and sines of positions, both ``(n, head_dim/2)`` float32.

    Args:
        positions: ``(n,)`` int32.
        frequencies: As :func:`inverse_frequencies` returns them.
    """

    def angles(of: te.Tensor, frequency: te.Tensor) -> te.Tensor:
        return te.compute(
            (of.shape[0], frequency.shape[0]),
            lambda i, k: of[i].astype("float32") * frequency[k],
            name="angles",
        )

    def each(function: Callable[[tirx.Expr], tirx.Expr], name: str) -> nn.Tensor:
        return nn.op.tensor_expr_op(
            lambda x: te.compute(x.shape, lambda i, k: function(x[i, k]), name=name), name, [turns]
        )

    turns = nn.op.tensor_expr_op(
        angles, "rotary_angles", [positions, nn.Tensor.from_const(frequencies)]
    )
    return each(tirx.cos, "cosines"), each(tirx.sin, "sines")


def rotated(
    x: tirx.Buffer,
    place: tuple[tirx.Expr, tirx.Expr],
    channel: tirx.Expr,
    cos: tirx.Buffer,
    sin: tirx.Buffer,
) -> tirx.Expr:
    """Return one channel of a head, rotated.

    A head's first half holds the real parts of its pairs and its second half the imaginary ones.

    Args:
        x: ``(n, heads, head_dim)`` float32.
        place: The position's row and the head.
        channel: The channel.
        cos: ``(n, head_dim/2)`` float32.
        sin: The same.
    """
    row, head = place
    half = cos.shape[1]
    pair = channel % half
    real, imaginary = x[row, head, pair], x[row, head, pair + half]
    return tirx.if_then_else(
        channel < half,
        # Joined, so that LLVM need not choose: a value has the same bits in every kernel.
        fma(real, cos[row, pair], -imaginary * sin[row, pair]),
        fma(imaginary, cos[row, pair], real * sin[row, pair]),
    )
