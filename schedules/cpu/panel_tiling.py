"""The tiles of a multiplication with panels, and their knobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mvlm.models.ops.signatures import QuantizedLinearSignature
from mvlm.schedules.config_space import Config
from mvlm.schedules.cpu.panel_product import PanelProduct
from mvlm.schedules.cpu.panels import FEATURES, panel_count, panel_layout


@dataclass(frozen=True)
class GemvTile:
    """The tile of one row's product, which is bound by memory.

    Attributes:
        panels: Panels of a register tile.
        prefetch_distance: Of weights, in bytes; 0 disables prefetching.
    """

    panels: int
    prefetch_distance: int

    @classmethod
    def choose(cls, op: QuantizedLinearSignature, knob: Config) -> GemvTile:
        """Read the knobs of a linear layer of one row."""
        return cls(
            panels=knob("tile_panels", 1, _divisors(panel_count(op.features), (1, 2, 4))),
            prefetch_distance=knob("prefetch_distance", 0, (0, 512, 1024, 2048, 4096)),
        )


@dataclass(frozen=True)
class GemmTile:
    """The tile of many rows' product, which is bound by registers and caches.

    Attributes:
        rows: Rows of a register tile.
        panels: Panels of a register tile.
        k_unroll: Steps of a group that are unrolled for one row before the next row's.
        unpack_once: Whether 4-bit values are unpacked once for all rows, not in every tile.
        tiles_per_task: Tiles of `panels` panels that a task computes in sequence.
        k_block: Size of a block along K, in activation scales.
    """

    rows: int
    panels: int
    k_unroll: int
    unpack_once: bool
    tiles_per_task: int
    k_block: int

    @classmethod
    def choose(cls, product: PanelProduct, knob: Config) -> GemmTile:
        """Read the knobs of a linear layer of many rows."""
        op, isa, group_steps = product.op, product.isa, product.group_steps
        bits, activation_scales = panel_layout(op.weight_format).bits, op.activation_scales
        panels = knob("tile_panels", 1, _divisors(panel_count(op.features), (1, 2)))
        unpack_once = bits == 4 and bool(knob("unpack_once", 1, (0, 1)))
        most_steps = min(isa.k_unroll, group_steps)
        all_steps = _divisors(group_steps, (1, 2, 4, 8, 16))
        k_unroll = knob(
            "k_unroll", most_steps, (most_steps,) if isa.needs_constant_step else all_steps
        )
        # Partial sums are kept in the output, which has no room for a last panel that is not full.
        can_store_partial = op.features % FEATURES == 0
        k_blocks = range(1, activation_scales + 1) if can_store_partial else (activation_scales,)
        # Whatever `panels` is: knobs are independent of each other.
        tiles = panel_count(op.features) // max(_divisors(panel_count(op.features), (1, 2)))
        return cls(
            rows=knob("tile_m", isa.tile_m, (1, 2, 3, 4, 5, 6, 8, 10, 12)),
            panels=panels,
            # Both nibbles of a byte are steps: without unpacking first, all steps are unrolled.
            k_unroll=group_steps if bits == 4 and not unpack_once else k_unroll,
            unpack_once=unpack_once,
            tiles_per_task=knob("tiles_per_task", 1, _divisors(tiles, (1, 2, 4, 8))),
            k_block=knob("k_block", activation_scales, _divisors(activation_scales, k_blocks)),
        )


def _divisors(extent: int, values: Iterable[int]) -> tuple[int, ...]:
    return tuple(each for each in values if extent % each == 0)
