"""What a kernel must know of an instruction set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

# Bytes of weights, unsigned, and four signed bytes of activations as one int32.
Pair = tuple[tirx.Expr, tirx.Expr]


@dataclass(frozen=True)
class InstructionSet:
    """How a CPU adds products of bytes.

    Attributes:
        name: For people.
        features: LLVM's names of the features that it needs.
        lanes: int32 sums that a register holds, one for each feature of the output.
        rows: Rows of activations whose sums fit into the registers, with 16 features each.
        dot: Adds products to sums: takes int32 sums of `lanes`, pairs of weights and activations,
            and whether weights have 4 bits or 8, and returns the sums. Each lane adds its four
            weights times the four activations. A group's pairs come in one call, 8 of them.
        is_signed: Whether `dot` takes the zero point, 128, off 8-bit weights by itself.
    """

    name: str
    features: tuple[str, ...]
    lanes: int
    rows: int
    dot: Callable[[tirx.Expr, Sequence[Pair], int], tirx.Expr]
    is_signed: bool
