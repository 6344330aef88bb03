"""The byte of a group of levels: its scale in the lower five bits, its offset in the upper three.

A weight is ``row_scale * scale * (level + offset)``. The scale is 1 to 31, and 0 in a group of
zeros; the offset is one of eight, -3 to 2.25 in steps of 0.75: the byte is signed, and its upper
bits count the steps, -4 to 3. Weights of a group rarely lie symmetrically about zero: shifted
levels reach its extremes at a finer scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SCALE_BITS = 5
MAX_SCALE = (1 << SCALE_BITS) - 1
OFFSETS = 8
OFFSET_STEP = 0.75
LEAST_OFFSET = -OFFSETS // 2 * OFFSET_STEP


def pack_scales(scales: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """Return the bytes of scales, 0 to 31, and of offsets, of which 0 is the least and 7 the most.

    Both are integers of one shape.
    """
    steps = offsets.astype(np.int8) - np.int8(OFFSETS // 2)
    found: npt.NDArray[np.int8] = scales.astype(np.int8) | steps << SCALE_BITS
    return found


def read_scales(stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the scales that bytes hold."""
    found: npt.NDArray[np.float32] = (stored & MAX_SCALE).astype(np.float32)
    return found


def read_offsets(stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the offsets that bytes hold, in units of levels."""
    found: npt.NDArray[np.float32] = (stored >> SCALE_BITS).astype(np.float32)
    return found * np.float32(OFFSET_STEP)


def offset_values(indices: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the offsets of indices 0 to 7, in units of levels."""
    found: npt.NDArray[np.float32] = indices.astype(np.float32)
    return found * np.float32(OFFSET_STEP) + np.float32(LEAST_OFFSET)


def nearest_offsets(shifts: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return the indices of the offsets that are nearest to shifts, in units of levels."""
    steps = np.rint((shifts - np.float32(LEAST_OFFSET)) * np.float32(1 / OFFSET_STEP))
    found: npt.NDArray[np.intp] = np.clip(steps, 0, OFFSETS - 1).astype(np.intp)
    return found
