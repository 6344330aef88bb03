"""Vectors of any CPU: bytes are multiplied in 16 bits, and pairs of products added in 32."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import InstructionSet, Pair

_LANES = 4


def _dot(sums: tirx.Expr, pairs: Sequence[Pair], bits: int) -> tirx.Expr:
    del bits  # 255 * 127 fits into 16 bits
    for weights, word in pairs:
        activations = T.reinterpret("int8x16", T.broadcast(word, _LANES))
        products = T.Cast("int16x16", weights) * T.Cast("int16x16", activations)
        twos = _folded(T.reinterpret("int32x8", products), 16)
        sums = sums + T.Cast("int32x4", _folded(T.reinterpret("int64x4", twos), 32))
    return sums


def _folded(pairs: tirx.Expr, bits: int) -> tirx.Expr:
    """Add the signed lower and upper halves of every lane."""
    dtype, lanes = f"int{2 * bits}", 128 // bits
    shift = T.broadcast(T.Cast(dtype, bits), lanes)
    return (pairs << shift >> shift) + (pairs >> shift)


INSTRUCTIONS = InstructionSet(
    name="plain vectors", features=(), lanes=_LANES, rows=4, dot=_dot, is_signed=False
)
