"""Rotary positions (RoFormer, arXiv 2104.09864), rotating halves as LLaMA does.

TVM's KV cache could rotate by itself, but it divides a position by a power of the base where
LLaMA multiplies it by the rounded reciprocal: a thousand positions on, the logits differ by more
than 1e-4. It would also compute every sine anew in every head of every layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from tvm import te, tirx
from tvm.relax.frontend import nn

# Cosines and sines.
RotaryTable = tuple[nn.Tensor, nn.Tensor]


def inverse_frequencies(head_dim: int, theta: float) -> npt.NDArray[np.float32]:
    """Return theta^(-2i/head_dim) for i below head_dim/2, rounded where LLaMA rounds it."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers


def rotary_table(positions: nn.Tensor, frequencies: npt.NDArray[np.float32]) -> RotaryTable:
    """Return cosines and sines, both ``(n, head_dim/2)`` float32, of positions ``(n,)`` int32."""

    def angles(at: te.Tensor, frequency: te.Tensor) -> te.Tensor:
        return te.compute(
            (at.shape[0], frequency.shape[0]),
            lambda i, k: at[i].astype("float32") * frequency[k],
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


def rotate(qkv: nn.Tensor, table: RotaryTable, turning: int) -> nn.Tensor:
    """Rotate the first `turning` heads of ``(1, n, heads, head_dim)``; the others pass.

    A head's first half holds the real parts of its pairs and its second half the imaginary ones.
    """
    batch, length, heads, head_dim = qkv.shape
    half = head_dim // 2

    def turned(x: te.Tensor, cos: te.Tensor, sin: te.Tensor) -> te.Tensor:
        def value(
            b: tirx.Var, i: tirx.Var, head: tirx.Var, part: tirx.Var, k: tirx.Var
        ) -> tirx.Expr:
            real, imaginary = x[b, i, head, 0, k], x[b, i, head, 1, k]
            return tirx.if_then_else(
                head < turning,
                tirx.if_then_else(
                    part == 0,
                    real * cos[i, k] - imaginary * sin[i, k],
                    imaginary * cos[i, k] + real * sin[i, k],
                ),
                x[b, i, head, part, k],
            )

        return te.compute(x.shape, value, name="turned")

    pairs = nn.op.reshape(qkv, (batch, length, heads, 2, half))
    result = nn.op.tensor_expr_op(turned, "rotate", [pairs, *table])
    return nn.op.reshape(result, (batch, length, heads, head_dim))
