"""An instruction set, as far as kernels depend on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

# A step within a group, and its weights: unsigned bytes, or 16-bit integers. The step is an
# integer, or an expression where a group's steps are not all unrolled.
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
            of a weight: 4, 8 or 16. It returns the accumulators. Each lane adds its four or two
            weights of a step times the step's activations.
        is_signed: Whether `dot` itself subtracts the zero point, 128, of 8-bit weights.
        k_unroll: Steps that are unrolled for one row before the next row's, at most.
        needs_constant_step: Whether `dot` needs all of a group's steps at once, as Python integers:
            an instruction that takes a lane by a constant.
    """

    name: str
    features: tuple[str, ...]
    lanes: int
    tile_m: int
    dot: Callable[[tirx.Expr, Sequence[StepWeights], Activations, int], tirx.Expr]
    is_signed: bool
    k_unroll: int = 16
    needs_constant_step: bool = False
