"""What a kernel must know of an instruction set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

# A step within a group, and its weights: unsigned bytes, or 16-bit integers. The step is a number,
# or an expression where only some of a group's steps are taken at once.
StepWeights = tuple[Any, tirx.Expr]
# Reads a group's activations as int32, each of which holds a step's four signed bytes or two 16-bit
# integers: which is the first, and how many.
Activations = Callable[[Any, int], tirx.Expr]


@dataclass(frozen=True)
class InstructionSet:
    """How a CPU adds products of bytes.

    Attributes:
        name: For people.
        features: LLVM's names of the features that it needs.
        lanes: int32 sums that a register holds, one for each feature of the output.
        tile_m: Rows of activations whose sums fit into the registers, with 16 features each.
        dot: Adds products to sums: takes int32 sums of `lanes`, the levels of a group's steps, all
            of them or `k_unroll`, in any order, its activations, and whether weights have 4 bits, 8
            or 16, and returns the sums. Each lane adds its weights of a step, four or two, times
            the step's activations.
        is_signed: Whether `dot` takes the zero point, 128, off 8-bit weights by itself.
        k_unroll: Steps of one row before the next row's, at most, where rows are many.
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
