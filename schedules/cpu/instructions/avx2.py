"""AVX2: ``pmaddubsw`` adds two products of bytes in 16 bits, ``pmaddwd`` by ones widens to 32.

``pmaddwd`` adds two products of words in 32 bits. ``pshufb`` looks levels up, whose bytes are 0 to
32: two products come to 8,128 at most. Eight times two may leave 16 bits on the way; but sums that
start from their own halves of the zero point's correction end at sums of 16 products of signed
levels, 32,512 at most, and addition wraps around (see `models.quantization.MAX_LEVEL`).
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, StepWeights
from mvlm.schedules.cpu.instructions.level_table import shuffle_indices

_LANES = 8


def _dot(
    sums: tirx.Expr, step_weights: Sequence[StepWeights], activations: Activations, bits: int
) -> tirx.Expr:
    pairs = [(weights, activations(step, 1)) for step, weights in step_weights]
    if bits < 8:
        products = (_products(weights, word) for weights, word in pairs)
        return T.reinterpret("int32x8", sum(products, T.reinterpret("int16x16", sums)))
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


def _lookup(table: tirx.Expr, bits: int, stored: tirx.Expr, is_high: bool) -> tirx.Expr:
    return T.call_llvm_pure_intrin(
        "uint8x32",
        "llvm.x86.avx2.pshuf.b",
        table,
        shuffle_indices(bits, stored, 32, is_high),
    )


INSTRUCTIONS = InstructionSet(
    name="AVX2",
    features=("+avx2",),
    lanes=_LANES,
    tile_m=4,
    dot=_dot,
    lookup=_lookup,
    signed_bits=(8,),
    widen=lambda sums: _widened(T.reinterpret("int16x16", sums)),
)
