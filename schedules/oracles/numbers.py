"""Random arguments of kernels, and the fill value that shows unwritten elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.schedules.signature import extents

Array = npt.NDArray[Any]
UNWRITTEN = 77


def random_array(buffer: Any, random: np.random.Generator) -> Array:
    """Return standard normal floats, or integers of the whole range of their type."""
    shape, dtype = extents(buffer), np.dtype(str(buffer.dtype))
    if dtype.kind == "f":
        return random.standard_normal(shape, np.float32).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def unwritten(buffer: Any) -> Array:
    """Return an array in which an element that is never written shows."""
    dtype = np.dtype(str(buffer.dtype))
    return np.full(extents(buffer), np.nan if dtype.kind == "f" else UNWRITTEN, dtype)
