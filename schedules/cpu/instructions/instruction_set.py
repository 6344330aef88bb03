"""An instruction set, as far as kernels depend on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

# A step within a group, and its weights: bytes, or 16-bit integers. The step is an integer, or an
# expression where a group's steps are not all unrolled.
StepWeights = tuple[Any, tirx.Expr]
# Reads a group's activations as int32, each of which holds a step's four signed bytes or two 16-bit
# integers. Arguments: the first, and how many.
Activations = Callable[[Any, int], tirx.Expr]


@dataclass(frozen=True)
class InstructionSet:
    """How a CPU accumulates products of bytes.

    Attributes:
        name: For messages and tables.
        features: LLVM's names of the features that it needs.
        lanes: int32 accumulators of a register, one for each feature of the output.
        tile_m: Rows of activations whose sums fit into the registers, with 16 features each.
        dot: Accumulates products. It takes int32 accumulators of `lanes`, the weights of a group's
            steps (all of them or `k_unroll`, in any order), the group's activations, and the bits
            of a stored weight: 3, 4, 8 or 16. It returns the accumulators. Each lane adds its four
            or two weights of a step times the step's activations.
        lookup: Returns the bytes that `dot` multiplies of levels, in a register of ``4 * lanes``
            uint8. It takes such a register of the table (`table_register`), the bits of an index, a
            register of bytes, and whether their high nibbles or their low ones are the indices. Of
            the indices of 3 bits the fourth bit of the nibble is arbitrary.
        signed_bits: Bits of the weights that `dot` multiplies without their zero point: it
            subtracts that of 8-bit ones itself, and `lookup` returns signed levels of 4 and 3 bits.
        widen: Where it is given, `dot` adds products of levels in two int16 halves of each
            accumulator, which start as those of the zero point's correction; this adds the halves
            when a group is complete.
        k_unroll: Steps that are unrolled for one row before the next row's, at most.
        needs_constant_step: Whether `dot` needs all of a group's steps at once, as Python integers:
            an instruction that takes a lane by a constant.
    """

    name: str
    features: tuple[str, ...]
    lanes: int
    tile_m: int
    dot: Callable[[tirx.Expr, Sequence[StepWeights], Activations, int], tirx.Expr]
    lookup: Callable[[tirx.Expr, int, tirx.Expr, bool], tirx.Expr]
    signed_bits: tuple[int, ...] = ()
    widen: Callable[[tirx.Expr], tirx.Expr] | None = None
    k_unroll: int = 16
    needs_constant_step: bool = False
