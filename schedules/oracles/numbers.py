"""Random arguments of kernels, and the fill value that shows unwritten elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.ops.signatures import Signature

Array = npt.NDArray[Any]
UNWRITTEN = 77


def random_arguments(
    op: Signature, extents: Mapping[str, int], random: np.random.Generator
) -> dict[str, Array]:
    """Return random inputs by name, and outputs in which an element that is never written shows.

    Args:
        op: The operation.
        extents: Values of its symbolic extents.
        random: The generator.
    """
    arguments = {}
    for each in op.parameters:
        make = unwritten if each.is_written else random_array
        arguments[each.name] = make(each.known_shape(extents), each.dtype, random)
    return arguments


def random_array(shape: tuple[int, ...], dtype: str, random: np.random.Generator) -> Array:
    """Return standard normal floats, or integers of the whole range of their type."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return random.standard_normal(shape, np.float32).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, shape, kind, endpoint=True)


def unwritten(shape: tuple[int, ...], dtype: str, _: np.random.Generator) -> Array:
    """Return an array of NaN, or of 77 where it holds integers."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else UNWRITTEN, dtype)
