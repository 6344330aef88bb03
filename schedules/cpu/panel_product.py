"""The product of a group of integer weights with integer activations, in a register.

A group is 32 weights along K of each feature of a panel (see `panels`). A register holds the
int32 sums of some features, one a lane. A step multiplies as many weights of each feature as fill
32 bits, and adds the products to the feature's sum, which is exact: 32 products of 255 and 127 come
to a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.ops.signatures import QuantizedLinearSignature
from mvlm.models.quantization import GROUP_SIZE
from mvlm.schedules.cpu.instructions import InstructionSet
from mvlm.schedules.cpu.instructions.instruction_set import StepWeights
from mvlm.schedules.cpu.panels import FEATURES, PanelLayout, panel_layout


@dataclass(frozen=True)
class PanelProduct:
    """How groups are multiplied, by an instruction set.

    Attributes:
        op: The linear layer.
        isa: The instruction set.
    """

    op: QuantizedLinearSignature
    isa: InstructionSet

    @property
    def layout(self) -> PanelLayout:
        """The layout of a group within a panel."""
        return panel_layout(self.op.weight_format)

    @property
    def lanes(self) -> int:
        """Features of a register."""
        return self.isa.lanes

    @property
    def parts(self) -> int:
        """Registers that the features of a panel take."""
        return FEATURES // self.lanes

    @property
    def depth(self) -> int:
        """Weights of a feature in a step."""
        return self.layout.depth

    @property
    def group_steps(self) -> int:
        """Steps of a group."""
        return GROUP_SIZE // self.depth

    @property
    def subtracts_zero_point(self) -> bool:
        """Whether products need no correction for the weights' zero point."""
        return not self.op.has_zero_point or (self.layout.bits == 8 and self.isa.is_signed)

    @property
    def step_order(self) -> tuple[int, ...]:
        """The steps of a group in the order in which they are in memory.

        The two nibbles of a byte follow each other, so that fewer bytes occupy registers.
        """
        stored = self.layout.steps
        return tuple(
            step for first in range(stored) for step in range(first, self.group_steps, stored)
        )

    def features_of(self, part: Any) -> tirx.Expr:
        """Return the elements of a step that belong to a register's features."""
        width = self.depth * self.lanes
        return T.ramp(part * width, 1, width)

    def weights(
        self, weight: tirx.Buffer, panel: Any, group: Any, part: Any, step: Any
    ) -> tirx.Expr:
        """Read a step's quantized values from a panel, for the features of one register."""
        stored_steps = self.layout.steps
        stored = weight[panel, group, step % stored_steps, self.features_of(part)]
        if self.layout.bits != 4:
            return stored
        width = self.depth * self.lanes
        if step < stored_steps:
            return stored & T.broadcast(T.uint8(15), width)
        return stored >> T.broadcast(T.uint8(4), width)

    def dot(
        self,
        sums: tirx.Expr,
        weights: Sequence[StepWeights],
        x: tirx.Buffer,
        row: Any,
        group: Any,
    ) -> tirx.Expr:
        """Add the products of some steps' weights with a row's activations to a register."""

        def activations(first: Any, count: int) -> tirx.Expr:
            start = group * GROUP_SIZE + self.depth * first
            read = x[row, T.ramp(start, 1, self.depth * count)]
            return T.reinterpret("int32" if count == 1 else f"int32x{count}", read)

        return self.isa.dot(sums, weights, activations, self.layout.bits)
