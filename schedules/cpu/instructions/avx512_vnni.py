"""AVX-512 VNNI: one instruction multiplies 64 bytes, or 32 words, and adds to 16 sums.

Levels are looked up by ``vpermb`` (VBMI, which all CPUs with VNNI but the first have): it takes 64
bytes of table, so that 16 levels stand there four times, and indices need no mask. Elsewhere
``vpshufb`` does as in AVX2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, StepWeights
from mvlm.schedules.cpu.instructions.level_table import (
    shifted_words,
    shuffle_indices,
)

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


def _shuffle_lookup(table: tirx.Expr, bits: int, stored: tirx.Expr, is_high: bool) -> tirx.Expr:
    return T.call_llvm_pure_intrin(
        "uint8x64",
        "llvm.x86.avx512.pshuf.b.512",
        table,
        shuffle_indices(bits, stored, 64, is_high),
    )


def _permute_lookup(table: tirx.Expr, bits: int, stored: tirx.Expr, is_high: bool) -> tirx.Expr:
    return T.call_llvm_pure_intrin(
        "uint8x64",
        "llvm.x86.avx512.permvar.qi.512",
        table,
        shifted_words(stored, 64) if is_high else stored,
    )


INSTRUCTIONS = InstructionSet(
    name="AVX-512 VNNI",
    features=("+avx512vnni", "+avx512bw"),
    lanes=_LANES,
    tile_m=4,
    dot=_dot,
    lookup=_shuffle_lookup,
    k_unroll=4,
)
WITH_VBMI = replace(
    INSTRUCTIONS,
    name="AVX-512 VNNI, VBMI",
    features=(*INSTRUCTIONS.features, "+avx512vbmi"),
    lookup=_permute_lookup,
)
