"""The product of a group of integer weights with integer activations, in a register.

A group is 32 weights along K of each feature of a panel (see `panels`). A register holds the
int32 sums of some features, one a lane. A step multiplies as many weights of each feature as fill
32 bits, and adds the products to the feature's sum, which is exact: 32 products of 255 and 127 come
to a million. Levels of weights of 4 and 3 bits are looked up in a register.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.bit_packing import SPARE_BIT
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
        return not self.op.has_zero_point or self.layout.bits in self.isa.signed_bits

    @property
    def step_sets(self) -> tuple[tuple[int, ...], ...]:
        """The steps of a group, those together that are multiplied before another register's.

        The two nibbles of a byte follow each other, and a set that of the other registers of a
        panel, so that fewer bytes and activations occupy registers. Steps of whole bytes or words
        are one set.
        """
        if not self.is_packed:
            return (tuple(range(self.group_steps)),)
        half = self.group_steps // 2
        return tuple((step, step + half) for step in range(half))

    @property
    def is_packed(self) -> bool:
        """Whether a stored byte holds the nibbles of two steps."""
        return self.layout.bits < 8

    def features_of(self, part: Any) -> tirx.Expr:
        """Return the elements of a step that belong to a register's features."""
        width = self.depth * self.lanes
        return T.ramp(part * width, 1, width)

    def weights(
        self, weight: tirx.Buffer, panel: Any, group: Any, part: Any, step: Any
    ) -> tirx.Expr:
        """Read a step's weights from a panel, for the features of one register.

        Args:
            weight: The panels.
            panel: The panel's index.
            group: The group's.
            part: The register's, within the panel.
            step: A Python integer where `is_packed`.
        """

        def stored(at: Any) -> tirx.Expr:
            return weight[panel, group, at, self.features_of(part)]

        if not self.is_packed:
            return stored(step)
        half = self.group_steps // 2
        nibble_set, is_high = step % half, step >= half
        if nibble_set < self.layout.steps:
            return self.isa.lookup(self.layout.levels, stored(nibble_set), is_high)
        spare = self._spare_nibbles([stored(at) for at in range(self.layout.steps)])
        return self.isa.lookup(self.layout.levels, spare, is_high)

    def _spare_nibbles(self, stored: Sequence[tirx.Expr]) -> tirx.Expr:
        """Return the nibbles whose bit b is the fourth one of the nibbles of step b."""
        width = self.depth * self.lanes

        def bits(at: int) -> tirx.Expr:
            words = T.reinterpret(f"uint16x{width // 2}", stored[at])
            shifted = words >> T.broadcast(T.uint16(SPARE_BIT - at), width // 2)
            return T.reinterpret(f"uint8x{width}", shifted) & T.broadcast(
                T.uint8(0x11 << at), width
            )

        return bits(0) | bits(1) | bits(2)

    def initial_sums(
        self,
        zero_point_correction: tirx.Buffer,
        zero_point_halves: tirx.Buffer,
        row: Any,
        group: Any,
    ) -> tirx.Expr:
        """Return what a row's accumulators of a group start from, the same for all features.

        Args:
            zero_point_correction: ``(M, groups)``.
            zero_point_halves: ``(M, groups, 2)``.
            row: The row.
            group: The group.
        """
        if self.subtracts_zero_point:
            return T.int32(0)
        if self._adds_halves:
            return T.reinterpret("int32", zero_point_halves[row, group, T.ramp(0, 1, 2)])
        return zero_point_correction[row, group]

    def completed(self, sums: tirx.Expr) -> tirx.Expr:
        """Return the int32 sums of a group, all of whose products have been added."""
        return self.isa.widen(sums) if self._adds_halves and self.isa.widen else sums

    @property
    def _adds_halves(self) -> bool:
        return self.is_packed and self.isa.widen is not None

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
