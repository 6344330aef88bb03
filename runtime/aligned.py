"""Memory that compiled code may read whole vectors from.

TVM's code assumes that every tensor begins at a multiple of 64 bytes and reads with instructions
that fault otherwise; NumPy promises 16.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of undefined values that begins at a multiple of 64 bytes."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + nbytes].view(dtype).reshape(shape)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array, or a copy of it that is contiguous and aligned."""
    if array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous:
        return array
    return aligned_copy(array)


def aligned_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy that is contiguous and aligned."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
