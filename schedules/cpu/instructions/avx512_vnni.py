"""AVX-512 VNNI: one instruction multiplies 64 bytes and adds to 16 sums of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import InstructionSet, Pair

_LANES = 16


def _dot(sums: tirx.Expr, pairs: Sequence[Pair], bits: int) -> tirx.Expr:
    del bits  # unsigned by signed bytes into 32 bits: nothing overflows in between
    for weights, word in pairs:
        activations = T.reinterpret("int8x64", T.broadcast(word, _LANES))
        sums = T.call_llvm_pure_intrin(
            "int32x16", "llvm.x86.avx512.vpdpbusd.512", sums, weights, activations
        )
    return sums


INSTRUCTIONS = InstructionSet(
    name="AVX-512 VNNI",
    features=("+avx512vnni", "+avx512bw"),
    lanes=_LANES,
    rows=8,
    dot=_dot,
    is_signed=False,
)
