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
        rows: Rows of a register tile.
        side: Panels of a register tile, side by side.
        at_once: Steps of a group that one row takes before the next row does.
        takes_apart: Whether 4-bit levels are taken apart before any row is multiplied.
        together: Tiles of panels that a task takes, one after the other.
        chunk: Of the activations' scales along K, how many all rows go through before the next.
        ahead: How far ahead weights are asked for, in bytes; 0 if they are not.
    """

    rows: int
    side: int
    at_once: int
    takes_apart: bool
    together: int
    chunk: int
    ahead: int


def tile_one_row(panels: int, group_steps: int, shares: int, knob: Config) -> Tiling:
    """Config for one row, which waits for memory: each panel goes by once.

    Args:
        panels: Of the weights.
        group_steps: Steps of a group of 32.
        shares: Scales of the row.
        knob: Chooses.
    """
    return Tiling(
        rows=1,
        side=knob("side", 1, _divisors(panels, (1, 2, 4))),
        at_once=group_steps,
        takes_apart=False,
        together=1,
        chunk=shares,
        ahead=knob("ahead", 0, (0, 512, 1024, 2048, 4096)),
    )


def tile_many_rows(
    panels: int,
    group_steps: int,
    shares: int,
    bits: int,
    can_wait: bool,
    instructions: InstructionSet,
    knob: Config,
) -> Tiling:
    """Config for many rows, which wait for registers and caches.

    Args:
        panels: Of the weights.
        group_steps: Steps of a group of 32.
        shares: Scales of a row.
        bits: Of a weight.
        can_wait: Whether the output has a place for the sums of every panel.
        instructions: What multiplies.
        knob: Chooses.
    """
    side = knob("side", 1, _divisors(panels, (1, 2)))
    takes_apart = bits == 4 and bool(knob("apart", 1, (0, 1)))
    usual = min(instructions.at_once, group_steps)
    values = (
        (usual,) if instructions.needs_constant_step else _divisors(group_steps, (1, 2, 4, 8, 16))
    )
    at_once = knob("at_once", usual, values)
    chunks = _divisors(shares, range(1, shares + 1)) if can_wait else (shares,)
    return Tiling(
        rows=knob("rows", instructions.rows, (1, 2, 3, 4, 5, 6, 8, 10, 12)),
        side=side,
        # Both halves of a byte are steps: where they are not taken apart, all are taken at once.
        at_once=group_steps if bits == 4 and not takes_apart else at_once,
        takes_apart=takes_apart,
        # Whatever `side` is: the numbers are chosen apart from each other.
        together=knob(
            "together", 1, _divisors(panels // max(_divisors(panels, (1, 2))), (1, 2, 4, 8))
        ),
        chunk=knob("chunk", shares, chunks),
        ahead=0,
    )


def _divisors(extent: int, values: Iterable[int]) -> tuple[int, ...]:
    return tuple(each for each in values if extent % each == 0)
