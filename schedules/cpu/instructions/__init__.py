"""Instruction sets that multiply bytes, a file for each; kernels are generic over them."""

from __future__ import annotations

from tvm.target import Target

from mvlm.schedules.cpu.instructions import avx2, avx512_vnni, dotprod, plain
from mvlm.schedules.cpu.instructions.instruction_set import InstructionSet
from mvlm.schedules.cpu.vectors import cpu_features

__all__ = ["INSTRUCTION_SETS", "InstructionSet", "find_instructions"]

# In order of preference.
INSTRUCTION_SETS = (
    avx512_vnni.WITH_VBMI,
    avx512_vnni.INSTRUCTIONS,
    avx2.INSTRUCTIONS,
    dotprod.INSTRUCTIONS,
    plain.WITH_NEON,
    plain.WITH_SSSE3,
    plain.INSTRUCTIONS,
)


def find_instructions(target: Target) -> InstructionSet:
    """Return the best instruction set that a target has."""
    features = cpu_features(target)
    return next(known for known in INSTRUCTION_SETS if features.issuperset(known.features))
