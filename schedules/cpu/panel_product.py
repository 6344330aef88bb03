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
from mvlm.models.quantization import (
    GROUP_SIZE,
    MAX_SCALE,
    OFFSET_STEP,
    SCALE_BITS,
    TABLE_LEVELS,
    byte_zero_point,
)
from mvlm.schedules.cpu.instructions import InstructionSet
from mvlm.schedules.cpu.instructions.instruction_set import StepWeights
from mvlm.schedules.cpu.instructions.level_table import table_register
from mvlm.schedules.cpu.panels import FEATURES, PanelLayout, panel_layout

_QUARTERS = 4  # in which levels with their offsets are integers


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

    @property
    def register_weights(self) -> int:
        """Weights of a step that a register holds: its bytes, where `is_packed`."""
        return self.depth * self.lanes

    def features_of(self, part: Any) -> tirx.Expr:
        """Return the elements of a step that belong to a register's features."""
        return T.ramp(part * self.register_weights, 1, self.register_weights)

    @property
    def folds_offsets(self) -> bool:
        """Whether unpacked bytes hold levels with their offsets, in quarters.

        A level with its offset is -19 to 18.25, so that four times that fits a byte. Sums in 16
        bits have no room for it.
        """
        return self.is_packed and not self._adds_halves

    @property
    def adds_offsets(self) -> bool:
        """Whether the products of offsets are added apart, after those of a scale's groups."""
        return self.is_packed and self._adds_halves

    @property
    def unpacked_unit(self) -> float:
        """What unpacked bytes are multiples of."""
        return 1 / _QUARTERS if self.folds_offsets else 1.0

    @property
    def _table_zero(self) -> int:
        """What is added to levels to make the bytes that are multiplied."""
        if self.subtracts_zero_point:
            return 0
        return self.op.zero_point if self._adds_halves else byte_zero_point(self.op.zero_point)

    def table(self, levels: tirx.Buffer, panel: Any, is_unpacked: bool = False) -> tirx.Expr:
        """Return a register of a panel's levels, as `InstructionSet.lookup` takes it.

        Args:
            levels: The tables.
            panel: The panel's index.
            is_unpacked: Whether levels are in units of unpacked bytes.
        """
        read = levels[panel, T.ramp(0, 1, TABLE_LEVELS)]
        if is_unpacked and self.folds_offsets:
            read = read * T.broadcast(T.int8(_QUARTERS), TABLE_LEVELS)
        return table_register(read, self.register_weights, self._table_zero)

    def unpacked(
        self,
        weight: tirx.Buffer,
        scales: tirx.Buffer,
        table: Any,
        place: tuple[Any, ...],
        step: Any,
    ) -> tirx.Expr:
        """Return the bytes that a step's weights are unpacked to, for the features of a register.

        Args:
            weight: The panels.
            scales: Of their groups.
            table: The panel's, for unpacked bytes.
            place: The panel, the group and the register's index.
            step: As :meth:`weights` takes it.
        """
        panel, group, part = place
        found = self.weights(weight, table, panel, group, part, step)
        if not self.folds_offsets:
            return found
        # Every byte of a feature gets its offset.
        quarters = self._integer_steps(scales, panel, group, part) * T.broadcast(
            T.int32(round(OFFSET_STEP * _QUARTERS)), self.lanes
        )
        in_each = (quarters & T.broadcast(T.int32(0xFF), self.lanes)) * T.broadcast(
            T.int32(0x01010101), self.lanes
        )
        return found + T.reinterpret(f"uint8x{self.register_weights}", in_each)

    def weights(
        self, weight: tirx.Buffer, table: Any, panel: Any, group: Any, part: Any, step: Any
    ) -> tirx.Expr:
        """Read a step's weights from a panel, for the features of one register.

        Args:
            weight: The panels.
            table: The panel's, where `is_packed`.
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
            return self.isa.lookup(table, self.layout.bits, stored(nibble_set), is_high)
        spare = self._spare_nibbles([stored(at) for at in range(self.layout.steps)])
        return self.isa.lookup(table, self.layout.bits, spare, is_high)

    def scale(self, scales: tirx.Buffer, panel: Any, group: Any, part: Any) -> tirx.Expr:
        """Return a group's scales in float32, of the features of a register."""
        stored = self._stored_scales(scales, panel, group, part)
        if self.is_packed:
            stored = T.Cast(f"int32x{self.lanes}", stored)
            stored = stored & T.broadcast(T.int32(MAX_SCALE), self.lanes)
        return T.Cast(f"float32x{self.lanes}", stored)

    def unpacked_scale(self, scales: tirx.Buffer, panel: Any, group: Any, part: Any) -> tirx.Expr:
        """Return a group's scales of unpacked bytes in float32."""
        scale = self.scale(scales, panel, group, part)
        return scale * T.broadcast(T.float32(self.unpacked_unit), self.lanes)

    def offset_steps(self, scales: tirx.Buffer, panel: Any, group: Any, part: Any) -> tirx.Expr:
        """Return the steps of a group's offsets in float32, where `is_packed`."""
        return T.Cast(f"float32x{self.lanes}", self._integer_steps(scales, panel, group, part))

    def _integer_steps(self, scales: tirx.Buffer, panel: Any, group: Any, part: Any) -> tirx.Expr:
        stored = T.Cast(f"int32x{self.lanes}", self._stored_scales(scales, panel, group, part))
        return stored >> T.broadcast(T.int32(SCALE_BITS), self.lanes)

    def _stored_scales(self, scales: tirx.Buffer, panel: Any, group: Any, part: Any) -> tirx.Expr:
        return scales[panel, group, T.ramp(part * self.lanes, 1, self.lanes)]

    def _spare_nibbles(self, stored: Sequence[tirx.Expr]) -> tirx.Expr:
        """Return the nibbles whose bit b is the fourth one of the nibbles of step b."""
        width = self.register_weights

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
