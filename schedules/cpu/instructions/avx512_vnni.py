"""AVX-512 VNNI: one instruction multiplies 64 bytes, or 32 words, and adds to 16 sums."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, StepWeights

_LANES = 16


def _dot(
    sums: tirx.Expr, step_weights: Sequence[StepWeights], activations: Activations, bits: int
) -> tirx.Expr:
    # Products go into 32 bits at once: nothing overflows in between.
    for step, weights in step_weights:
        words = T.broadcast(activations(step, 1), _LANES)
        if bits == 16:
            pairs = T.reinterpret("int16x32", words)
            sums = T.call_llvm_pure_intrin(
                "int32x16", "llvm.x86.avx512.vpdpwssd.512", sums, weights, pairs
            )
            continue
        fours = T.reinterpret("int8x64", words)
        sums = T.call_llvm_pure_intrin(
            "int32x16", "llvm.x86.avx512.vpdpbusd.512", sums, weights, fours
        )
    return sums


INSTRUCTIONS = InstructionSet(
    name="AVX-512 VNNI",
    features=("+avx512vnni", "+avx512bw"),
    lanes=_LANES,
    tile_m=4,
    dot=_dot,
    is_signed=False,
    k_unroll=4,
)
