"""What weights are rounded to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

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
        levels: What stored integers stand for, ascending: they are indices of these. Empty where
            the stored integer is the zero point plus the one that it stands for.
        unit: What scales are multiples of: small where they would be too small for float16.
        scale_dtype: Of a group's scale: float16, or int8 where each row has a scale of its own.
    """

    name: str
    dtype: str
    bits: int
    zero_point: int = 0
    lowest: int = 0
    highest: int = 0
    levels: tuple[int, ...] = ()
    unit: float = 1.0
    scale_dtype: str = "float16"

    @property
    def has_row_scales(self) -> bool:
        """Whether scales are multiples of one scale for each row."""
        return self.scale_dtype == "int8"

    @property
    def is_integer(self) -> bool:
        """Whether a matrix is stored as integers with scales."""
        return self.highest > 0

    @cached_property
    def grid(self) -> Grid:
        """The integers that weights are rounded to, in units of their scales."""
        return Grid(self.lowest, self.highest, self.levels)

    @property
    def integer_dtype(self) -> str:
        """The dtype of `QuantizedMatrix.integers`."""
        if self.levels:
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


def _format_of_levels(name: str, bits: int, levels: tuple[int, ...]) -> WeightFormat:
    """Return a format of uneven levels, whose scales are multiples of one for each row."""
    assert len(levels) == 1 << bits and levels == tuple(sorted(set(levels)))
    assert levels[0] >= -MAX_LEVEL and levels[-1] <= MAX_LEVEL
    zero, ends = levels.index(0), (levels[0], levels[-1])
    return WeightFormat(name, "uint32", bits, zero, *ends, levels, scale_dtype="int8")


FLOAT32 = WeightFormat("float32", "float32", 32)
FLOAT16 = WeightFormat("float16", "float16", 16)
Q4MLC = WeightFormat("q4mlc", "uint32", 4, zero_point=7, lowest=-7, highest=7)
Q4NL = _format_of_levels("q4nl", 4, (-16, -13, -10, -8, -6, -4, -2, -1, 0, 1, 3, 5, 7, 9, 12, 16))
Q3NL = _format_of_levels("q3nl", 3, (-16, -10, -6, -2, 0, 3, 7, 12))
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


def has_halves(zero_point: int) -> bool:
    """Whether the halves of a group's zero-point correction fit into 16 bits each.

    A half is the zero point times the sum of 16 activations.
    """
    return 0 < zero_point <= MAX_LEVEL
