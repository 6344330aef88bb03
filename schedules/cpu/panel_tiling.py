"""The tiling of a multiplication with panels, and its knobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mvlm.schedules.config_space import Config
from mvlm.schedules.cpu.instructions import InstructionSet


@dataclass(frozen=True)
class Tiling:
    """The tiling of one multiplication.

    Attributes:
        tile_m: Rows of a register tile.
        tile_panels: Panels of a register tile.
        k_unroll: Steps of a group that are unrolled for one row before the next row's.
        unpack_once: Whether 4-bit values are unpacked once for all rows, not in every tile.
        tiles_per_task: Tiles of `tile_panels` panels that a task computes in sequence.
        k_block: Size of a block along K, in activation scales.
        prefetch_distance: Of weights, in bytes; 0 disables prefetching.
    """

    tile_m: int
    tile_panels: int
    k_unroll: int
    unpack_once: bool
    tiles_per_task: int
    k_block: int
    prefetch_distance: int


def gemv_tiling(panels: int, group_steps: int, activation_scales: int, knob: Config) -> Tiling:
    """Tile a product of one row, which is bound by memory: each panel is read once.

    Args:
        panels: Of the weights.
        group_steps: Steps of a group of 32.
        activation_scales: Scales of the row.
        knob: The configuration.
    """
    return Tiling(
        tile_m=1,
        tile_panels=knob("tile_panels", 1, _divisors(panels, (1, 2, 4))),
        k_unroll=group_steps,
        unpack_once=False,
        tiles_per_task=1,
        k_block=activation_scales,
        prefetch_distance=knob("prefetch_distance", 0, (0, 512, 1024, 2048, 4096)),
    )


def gemm_tiling(
    panels: int,
    group_steps: int,
    activation_scales: int,
    bits: int,
    can_store_partial: bool,
    instructions: InstructionSet,
    knob: Config,
) -> Tiling:
    """Tile a product of many rows, which is bound by registers and caches.

    Args:
        panels: Of the weights.
        group_steps: Steps of a group of 32.
        activation_scales: Scales of a row.
        bits: Of a weight.
        can_store_partial: Whether the output has room for the partial sums of every panel.
        instructions: The instruction set.
        knob: The configuration.
    """
    tile_panels = knob("tile_panels", 1, _divisors(panels, (1, 2)))
    unpack_once = bits == 4 and bool(knob("unpack_once", 1, (0, 1)))
    default_unroll = min(instructions.k_unroll, group_steps)
    values = (
        (default_unroll,)
        if instructions.needs_constant_step
        else _divisors(group_steps, (1, 2, 4, 8, 16))
    )
    k_unroll = knob("k_unroll", default_unroll, values)
    k_blocks = (
        _divisors(activation_scales, range(1, activation_scales + 1))
        if can_store_partial
        else (activation_scales,)
    )
    return Tiling(
        tile_m=knob("tile_m", instructions.tile_m, (1, 2, 3, 4, 5, 6, 8, 10, 12)),
        tile_panels=tile_panels,
        # Both nibbles of a byte are steps: without unpacking first, all steps are unrolled.
        k_unroll=group_steps if bits == 4 and not unpack_once else k_unroll,
        unpack_once=unpack_once,
        # Whatever `tile_panels` is: knobs are independent of each other.
        tiles_per_task=knob(
            "tiles_per_task", 1, _divisors(panels // max(_divisors(panels, (1, 2))), (1, 2, 4, 8))
        ),
        k_block=knob("k_block", activation_scales, k_blocks),
        prefetch_distance=0,
    )


def _divisors(extent: int, values: Iterable[int]) -> tuple[int, ...]:
    return tuple(each for each in values if extent % each == 0)
