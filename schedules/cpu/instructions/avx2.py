"""AVX2: ``pmaddubsw`` adds two products of bytes in 16 bits, ``pmaddwd`` by ones widens to 32.

``pmaddwd`` adds two products of words in 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, StepWeights

_LANES = 8


def _dot(
    sums: tirx.Expr, step_weights: Sequence[StepWeights], activations: Activations, bits: int
) -> tirx.Expr:
    pairs = [(weights, activations(step, 1)) for step, weights in step_weights]
    if bits == 4:
        # Eight times two products of 15 and 127 come to 30,480: they fit into 16 bits together.
        total = _products(*pairs[0])
        for weights, word in pairs[1:]:
            total = total + _products(weights, word)
        return sums + _widened(total)
    if bits == 16:
        for weights, word in pairs:
            words = T.reinterpret("int16x16", T.broadcast(word, _LANES))
            sums = sums + T.call_llvm_pure_intrin(
                "int32x8", "llvm.x86.avx2.pmadd.wd", weights, words
            )
        return sums
    for weights, word in pairs:
        # 255 * 127 * 2 overflows, 127 * 127 * 2 does not: the sign moves to the activations.
        quantized = T.reinterpret("int8x32", weights ^ T.broadcast(T.uint8(128), 32))
        size = T.reinterpret(
            "uint8x32", T.call_llvm_pure_intrin("int8x32", "llvm.abs", quantized, T.bool(False))
        )
        bytes_ = T.reinterpret("int8x32", T.broadcast(word, _LANES))
        signed = T.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.psign.b", bytes_, quantized)
        sums = sums + _widened(
            T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", size, signed)
        )
    return sums


def _products(weights: tirx.Expr, word: tirx.Expr) -> tirx.Expr:
    activations = T.reinterpret("int8x32", T.broadcast(word, _LANES))
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, activations)


def _widened(sums: tirx.Expr) -> tirx.Expr:
    ones = T.broadcast(T.int16(1), 16)
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", sums, ones)


INSTRUCTIONS = InstructionSet(
    name="AVX2", features=("+avx2",), lanes=_LANES, tile_m=4, dot=_dot, is_signed=True
)
