"""How the loops of a multiplication with panels are cut, and what of that is left open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mvlm.schedules.config_space import Config
from mvlm.schedules.cpu.instructions import InstructionSet


@dataclass(frozen=True)
class Tiling:
    """The tiles of one multiplication.

    Attributes:
        tile_m: Rows of a register tile.
        tile_panels: Panels of a register tile, side by side.
        k_unroll: Steps of a group that one row takes before the next row does.
        unpack_once: Whether 4-bit levels are taken apart before any row is multiplied.
        tiles_per_task: Tiles of panels that a task takes, one after the other.
        k_block: Of the activations' scales along K, how many all rows go through before the next.
        prefetch_distance: How far ahead weights are asked for, in bytes; 0 if they are not.
    """

    tile_m: int
    tile_panels: int
    k_unroll: int
    unpack_once: bool
    tiles_per_task: int
    k_block: int
    prefetch_distance: int


def gemv_tiling(panels: int, group_steps: int, activation_scales: int, knob: Config) -> Tiling:
    """Config for one row, which waits for memory: each panel goes by once.

    Args:
        panels: Of the weights.
        group_steps: Steps of a group of 32.
        activation_scales: Scales of the row.
        knob: Chooses.
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
    """Config for many rows, which wait for registers and caches.

    Args:
        panels: Of the weights.
        group_steps: Steps of a group of 32.
        activation_scales: Scales of a row.
        bits: Of a weight.
        can_store_partial: Whether the output has a place for the sums of every panel.
        instructions: What multiplies.
        knob: Chooses.
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
        # Both halves of a byte are steps: where they are not taken apart, all are taken at once.
        k_unroll=group_steps if bits == 4 and not unpack_once else k_unroll,
        unpack_once=unpack_once,
        # Whatever `tile_panels` is: the numbers are chosen apart from each other.
        tiles_per_task=knob(
            "tiles_per_task", 1, _divisors(panels // max(_divisors(panels, (1, 2))), (1, 2, 4, 8))
        ),
        k_block=knob("k_block", activation_scales, k_blocks),
        prefetch_distance=0,
    )


def _divisors(extent: int, values: Iterable[int]) -> tuple[int, ...]:
    return tuple(each for each in values if extent % each == 0)
