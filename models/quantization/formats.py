"""What weights are rounded to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from mvlm.models.rounding import Grid

GROUP_SIZE = 32
# The largest integers of symmetric quantization. 16-bit ones have 14 bits, so that 32 products of
# two such add up within 32.
QMAX = {"int8": 127, "int16": 8191}
# A vector whose largest magnitude is below this is quantized to zeros: its inverse scale would be
# infinite.
MIN_ABSMAX = 1e-30
# The largest magnitude of a level. Half of a group's products with activations fit into an int16.
MAX_LEVEL = 16
# What is added to signed bytes to make them unsigned, for CPUs that multiply such.
BYTE_ZERO = 128
# Rows of a matrix that have one table of levels, and its entries: a table of 8 is there twice.
TABLE_ROWS, TABLE_LEVELS = 16, 16
assert GROUP_SIZE // 2 * MAX_LEVEL * QMAX["int8"] <= np.iinfo(np.int16).max

Activations = Literal["float32", "int8", "int16"]


@dataclass(frozen=True)
class WeightFormat:
    """What the weights of a matrix are rounded to; the module's table has the meaning.

    Attributes:
        name: As kernels know it.
        dtype: Of a stored element of the layout ``rows``, which holds one weight or several.
        bits: Of a stored weight.
        zero_point: The stored integer that stands for zero.
        lowest: The least integer that a weight is rounded to; 0 for floats.
        highest: The greatest.
        tables: What stored integers may stand for: they are indices of the levels of one of these
            tables, ascending, which is chosen for each 16 rows. Empty where the stored integer is
            the zero point plus the one that it stands for.
        unit: What scales are multiples of: small where they would be too small for float16.
        scale_dtype: Of a group's scale: float16; with tables int8, which is a multiple of a scale
            of the row and an offset of the levels (see `group_scales`).
    """

    name: str
    dtype: str
    bits: int
    zero_point: int = 0
    lowest: int = 0
    highest: int = 0
    tables: tuple[tuple[int, ...], ...] = ()
    unit: float = 1.0
    scale_dtype: str = "float16"

    @property
    def has_tables(self) -> bool:
        """Whether integers are indices of levels, and scales multiples of one for each row."""
        return bool(self.tables)

    @property
    def is_integer(self) -> bool:
        """Whether a matrix is stored as integers with scales."""
        return self.highest > 0

    @cached_property
    def grid(self) -> Grid:
        """The integers that weights are rounded to, in units of their scales, without tables."""
        return Grid(self.lowest, self.highest)

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """The levels of each table."""
        return tuple(Grid(levels[0], levels[-1], levels) for levels in self.tables)

    @cached_property
    def stored_levels(self) -> npt.NDArray[np.int8]:
        """The tables as they are stored, ``(tables, 16)``: one of 8 levels is there twice."""
        levels = np.array(self.tables, np.int8)
        return np.tile(levels, (1, TABLE_LEVELS // levels.shape[1]))

    @property
    def integer_dtype(self) -> str:
        """The dtype of `QuantizedMatrix.integers`."""
        if self.tables:
            return "uint8"
        return "int8" if self.bits <= 8 else "int16"

    @property
    def packing(self) -> int:
        """Weights that a stored element holds as a whole; 3-bit ones lie in three elements."""
        return 8 * np.dtype(self.dtype).itemsize // self.bits

    @property
    def integer_activations(self) -> Activations:
        """The dtype of the integers that its integers are multiplied with, where any are."""
        return "int16" if self.bits > 8 else "int8"

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight of a large matrix takes, its share of its group's scale included."""
        scale_bits = 8 * np.dtype(self.scale_dtype).itemsize
        return self.bits + scale_bits / GROUP_SIZE if self.is_integer else float(self.bits)

    def elements(self, width: int) -> int:
        """Stored elements along an axis of `width` weights: weights fill whole ones together."""
        element_bits = 8 * np.dtype(self.dtype).itemsize
        whole_bits = math.lcm(self.bits, element_bits)
        return -(-width * self.bits // whole_bits) * (whole_bits // element_bits)


def _format_of_tables(name: str, bits: int, *tables: tuple[int, ...]) -> WeightFormat:
    """Return a format of levels, whose scales are multiples of one for each row."""
    for levels in tables:
        assert len(levels) == 1 << bits and levels == tuple(sorted(set(levels)))
        assert levels[0] >= -MAX_LEVEL and levels[-1] <= MAX_LEVEL
    ends = (-MAX_LEVEL, MAX_LEVEL)
    return WeightFormat(name, "uint32", bits, 0, *ends, tables, scale_dtype="int8")


FLOAT32 = WeightFormat("float32", "float32", 32)
FLOAT16 = WeightFormat("float16", "float16", 16)
Q4MLC = WeightFormat("q4mlc", "uint32", 4, zero_point=7, lowest=-7, highest=7)
Q4NL = _format_of_tables(
    "q4nl",
    4,
    (-16, -13, -10, -8, -6, -4, -2, -1, 0, 1, 3, 5, 7, 9, 12, 16),
    tuple(range(-15, 16, 2)),
)
Q3NL = _format_of_tables(
    "q3nl", 3, (-16, -10, -5, -2, 1, 5, 10, 16), (-16, -11, -7, -2, 2, 7, 11, 16)
)
Q8 = WeightFormat("q8", "int8", 8, lowest=-QMAX["int8"], highest=QMAX["int8"])
Q16 = WeightFormat(
    "q16", "int16", 16, lowest=-QMAX["int16"], highest=QMAX["int16"], unit=1 / (QMAX["int16"] + 1)
)
WEIGHT_FORMATS = {each.name: each for each in (FLOAT32, FLOAT16, Q4MLC, Q4NL, Q3NL, Q8, Q16)}


def format_named(name: str) -> WeightFormat:
    """Return the format that a signature names.

    Raises:
        ValueError: There is none: logs of earlier versions name formats that are gone.
    """
    if name not in WEIGHT_FORMATS:
        expected = [*WEIGHT_FORMATS]
        raise ValueError(f"{name[:40]!r} is no format of weights, expected one of {expected}")
    return WEIGHT_FORMATS[name]


def is_of_levels(zero_point: int) -> bool:
    """Whether a zero point is that of levels.

    The halves of a group's correction, each the zero point times the sum of 16 activations, fit
    into 16 bits. Where products are added in 32 bits, levels have the zero point of all bytes.
    """
    return zero_point == MAX_LEVEL


def byte_zero_point(zero_point: int) -> int:
    """Return the zero point of whole corrections, where a layout's is that of levels or another."""
    return BYTE_ZERO if is_of_levels(zero_point) else zero_point
