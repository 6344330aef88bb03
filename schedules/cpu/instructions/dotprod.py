"""Armv8.2 dot products: ``sdot`` multiplies 16 signed bytes and adds to 4 sums of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import InstructionSet, Pair

_LANES = 4


def _dot(sums: tirx.Expr, pairs: Sequence[Pair], bits: int) -> tirx.Expr:
    for weights, word in pairs:
        # 4-bit levels, 0 to 15, are signed bytes as they are.
        level = weights if bits == 4 else weights ^ T.broadcast(T.uint8(128), 16)
        sums = T.call_llvm_pure_intrin(
            "int32x4",
            "llvm.aarch64.neon.sdot",
            sums,
            T.reinterpret("int8x16", level),
            T.reinterpret("int8x16", T.broadcast(word, _LANES)),
        )
    return sums


INSTRUCTIONS = InstructionSet(
    name="Armv8.2 dot product",
    features=("+dotprod",),
    lanes=_LANES,
    rows=4,
    dot=_dot,
    is_signed=True,
)
