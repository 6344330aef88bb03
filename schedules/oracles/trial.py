"""A trial: arguments for a kernel, what it must write, and how far off it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from mvlm.schedules.kernel_set import OP_ATTRIBUTE
from mvlm.schedules.oracles.attention import append_trial, attention_trial, cached_attention_trial
from mvlm.schedules.oracles.linear import linear_trial, panel_linear_trial
from mvlm.schedules.oracles.rows import quantize_rows_trial, row_function_trial
from mvlm.schedules.signature import parameter_types

Array = npt.NDArray[Any]
# For each argument that a kernel writes, by its place: the values, and how far off each may be.
Expected = Mapping[int, tuple[Array, Array | float]]


@dataclass(frozen=True)
class Trial:
    """Arguments and results of one call.

    Attributes:
        arguments: All that a kernel takes, outputs included: those hold NaN, or 77.
        expect: Computes what is written. Takes seconds where the shapes are those of a real model.
    """

    arguments: tuple[Array, ...]
    expect: Callable[[], Expected]

    def worst(self, found: Mapping[int, Array]) -> float:
        """Return the largest error of what was written, in units of what is allowed.

        A kernel is right if this is at most one. It is infinite where something is missing or NaN.
        """
        worst = 0.0
        for place, (values, allowed) in self.expect().items():
            if place not in found or found[place].shape != values.shape:
                return float("inf")
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                error = np.abs(found[place].astype(np.float64) - values)
                share = np.where(error == 0, 0, error / allowed)
            if not np.isfinite(share).all():
                return float("inf")
            worst = max(worst, float(share.max(initial=0)))
        return worst


# An operation's trial, of the definition with all extents known, and a source of random numbers.
_TRIALS: dict[str, Callable[[tirx.PrimFunc, np.random.Generator], tuple[list[Array], Any]]] = {
    "linear": linear_trial,
    "panel_linear": panel_linear_trial,
    "row_function": row_function_trial,
    "quantize_rows": quantize_rows_trial,
    "attention": attention_trial,
    "cached_attention": cached_attention_trial,
    "append_to_cache": append_trial,
}


def make_trial(definition: tirx.PrimFunc, seed: int = 0) -> Trial:
    """Make random arguments for an operation.

    Args:
        definition: The operation; all its extents are known.
        seed: Of the numbers.

    Raises:
        KeyError: The operation has no oracle.
    """
    random = np.random.default_rng(seed)
    arguments, expect = _TRIALS[str(definition.attrs[OP_ATTRIBUTE])](definition, random)
    types = parameter_types(definition)
    assert [array.shape for array in arguments] == [
        tuple(int(extent) for extent in each.shape) for each in types
    ]
    return Trial(tuple(map(np.ascontiguousarray, arguments)), expect)
