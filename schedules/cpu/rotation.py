"""Rotary embedding of a head's vector (RoFormer, arXiv 2104.09864), as an inline function.

The first half holds the real parts of the pairs and the second the imaginary ones.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.vectors import lanes


def rotate_into(head_dim: int, scale: float = 1.0) -> Any:
    """Return an inline function that rotates a vector of `head_dim` channels and scales it.

    It takes the output ``(rows, head_dim)`` and its row; queries, keys and values ``(n, heads,
    head_dim)``, the tables ``(n, head_dim / 2)``, the position's row and the head.
    """
    half = head_dim // 2
    vector = lanes(half)

    @T.inline
    def rotate(
        out: tirx.Buffer,
        row: tirx.Expr,
        qkv: tirx.Buffer,
        cos: tirx.Buffer,
        sin: tirx.Buffer,
        i: tirx.Expr,
        head: tirx.Expr,
    ) -> None:
        for tile in T.serial(half // vector):
            for c in T.vectorized(vector):
                # Which of the two products is rounded is not left to LLVM, which decides otherwise
                # in other surroundings.
                real = T.meta_var(qkv[i, head, tile * vector + c])
                imaginary = T.meta_var(qkv[i, head, half + tile * vector + c])
                cosine = T.meta_var(cos[i, tile * vector + c])
                sine = T.meta_var(sin[i, tile * vector + c])
                out[row, tile * vector + c] = T.float32(scale) * T.fma(
                    real, cosine, -imaginary * sine
                )
                out[row, half + tile * vector + c] = T.float32(scale) * T.fma(
                    imaginary, cosine, real * sine
                )

    return rotate
