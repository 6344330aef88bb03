"""Armv8.2 dot products: ``sdot`` multiplies 16 signed bytes and adds to 4 sums of 32 bits.

There is none for words: those go as on any CPU, which makes ``smlal`` of them. Levels are signed
bytes, which `plain` looks up by ``tbl``.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, StepWeights
from mvlm.schedules.cpu.instructions.plain import neon_lookup, words

_LANES = 4


def _dot(
    sums: tirx.Expr, step_weights: Sequence[StepWeights], activations: Activations, bits: int
) -> tirx.Expr:
    if bits == 16:
        return sums + words(step_weights, activations)
    for step, weights in step_weights:
        quantized = weights if bits < 8 else weights ^ T.broadcast(T.uint8(128), 16)
        sums = T.call_llvm_pure_intrin(
            "int32x4",
            "llvm.aarch64.neon.sdot",
            sums,
            T.reinterpret("int8x16", quantized),
            _repeated(activations, step),
        )
    return sums


def _repeated(activations: Activations, step: int) -> tirx.Expr:
    """A step's activations in every lane: of a whole register, which ``sdot`` takes by element."""
    register, lane = divmod(step, _LANES)
    loaded = activations(_LANES * register, _LANES)
    return T.reinterpret("int8x16", tirx.Shuffle([loaded], [lane] * _LANES))


INSTRUCTIONS = InstructionSet(
    name="Armv8.2 dot product",
    features=("+dotprod",),
    lanes=_LANES,
    tile_m=4,
    dot=_dot,
    lookup=neon_lookup,
    signed_bits=(3, 4, 8),
    needs_constant_step=True,
)
