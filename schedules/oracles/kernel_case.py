"""A test case of a kernel: its arguments, the expected outputs, and the allowed error of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from mvlm.schedules.kernel_set import OP_ATTRIBUTE
from mvlm.schedules.oracles.attention import append_case, attention_case, cached_attention_case
from mvlm.schedules.oracles.linear import linear_case, panel_linear_case
from mvlm.schedules.oracles.rowwise import quantize_rows_case, rowwise_case
from mvlm.schedules.signature import parameter_types

Array = npt.NDArray[Any]
# By the index of each argument that a kernel writes: expected values, and allowed absolute errors.
Expected = Mapping[int, tuple[Array, Array | float]]


@dataclass(frozen=True)
class KernelCase:
    """Arguments and expected outputs of one call.

    Attributes:
        arguments: Every argument, outputs included: those hold NaN, or 77 where they are integers.
        expect: Computes the expected outputs. Takes seconds for the shapes of a real model.
    """

    arguments: tuple[Array, ...]
    expect: Callable[[], Expected]

    def largest_error(self, found: Mapping[int, Array]) -> float:
        """Return the largest error of the outputs, relative to the allowed error.

        A kernel is correct if this is at most one. A missing output or a NaN makes it infinite.

        Args:
            found: The outputs, by the index of the argument.
        """
        largest = 0.0
        for place, (values, allowed) in self.expect().items():
            if place not in found or found[place].shape != values.shape:
                return float("inf")
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                error = np.abs(found[place].astype(np.float64) - values)
                ratio = np.where(error == 0, 0, error / allowed)
            if not np.isfinite(ratio).all():
                return float("inf")
            largest = max(largest, float(ratio.max(initial=0)))
        return largest


# Makes an operation's test case, from a definition of known extents and random numbers.
_CASES: dict[str, Callable[[tirx.PrimFunc, np.random.Generator], tuple[list[Array], Any]]] = {
    "linear": linear_case,
    "panel_linear": panel_linear_case,
    "rowwise": rowwise_case,
    "quantize_rows": quantize_rows_case,
    "attention": attention_case,
    "cached_attention": cached_attention_case,
    "append_to_cache": append_case,
}


def make_kernel_case(definition: tirx.PrimFunc, seed: int = 0) -> KernelCase:
    """Make a test case of random arguments for an operation.

    Args:
        definition: The operation; all its extents are known.
        seed: Of the numbers.

    Raises:
        KeyError: The operation has no oracle.
    """
    random = np.random.default_rng(seed)
    arguments, expect = _CASES[str(definition.attrs[OP_ATTRIBUTE])](definition, random)
    types = parameter_types(definition)
    assert [array.shape for array in arguments] == [
        tuple(int(extent) for extent in each.shape) for each in types
    ]
    return KernelCase(tuple(map(np.ascontiguousarray, arguments)), expect)
