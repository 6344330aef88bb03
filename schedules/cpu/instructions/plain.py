"""Vectors of any CPU: bytes are multiplied in 16 bits, and pairs of products added in 32.

Words are multiplied in 32 bits, and pairs of products added in 64.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, Level

_LANES = 4


def _dot(
    sums: tirx.Expr, levels: Sequence[Level], activations: Activations, bits: int
) -> tirx.Expr:
    for step, weights in levels:
        word = activations(step, 1)
        if bits == 16:
            sums = sums + words(weights, word)
            continue
        # 255 * 127 fits into 16 bits.
        fours = T.reinterpret("int8x16", T.broadcast(word, _LANES))
        products = T.Cast("int16x16", weights) * T.Cast("int16x16", fours)
        twos = _folded(T.reinterpret("int32x8", products), 16)
        sums = sums + T.Cast("int32x4", _folded(T.reinterpret("int64x4", twos), 32))
    return sums


def words(weights: tirx.Expr, word: tirx.Expr) -> tirx.Expr:
    """Add the products of pairs of 16-bit integers: 8 of them into 4 sums."""
    activations = T.reinterpret("int16x8", T.broadcast(word, _LANES))
    products = T.Cast("int32x8", weights) * T.Cast("int32x8", activations)
    return T.Cast("int32x4", _folded(T.reinterpret("int64x4", products), 32))


def _folded(pairs: tirx.Expr, bits: int) -> tirx.Expr:
    """Add the signed lower and upper halves of every lane."""
    dtype, lanes = f"int{2 * bits}", 128 // bits
    shift = T.broadcast(T.Cast(dtype, bits), lanes)
    return (pairs << shift >> shift) + (pairs >> shift)


INSTRUCTIONS = InstructionSet(
    name="plain vectors", features=(), lanes=_LANES, rows=4, dot=_dot, is_signed=False
)
