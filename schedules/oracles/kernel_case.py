"""A test case of a kernel: its arguments, the expected outputs, and the allowed error of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.ops.signatures import (
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    LinearSignature,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowwiseSignature,
    Signature,
)
from mvlm.schedules.oracles.attention import append_case, attention_case, cached_attention_case
from mvlm.schedules.oracles.linear import linear_case, quantized_linear_case
from mvlm.schedules.oracles.rowwise import quantize_rows_case, rowwise_case

Array = npt.NDArray[Any]
# By the name of each parameter that a kernel writes: expected values, and allowed absolute errors.
Expected = Mapping[str, tuple[Array, Array | float]]


@dataclass(frozen=True)
class KernelCase:
    """Arguments and expected outputs of one call.

    Attributes:
        arguments: Every argument by name, in the order of the operation's parameters. Outputs hold
            NaN, or 77 where they are integers.
        expect: Computes the expected outputs. Takes seconds for the shapes of a real model.
    """

    arguments: Mapping[str, Array]
    expect: Callable[[], Expected]

    def largest_error(self, found: Mapping[str, Array]) -> float:
        """Return the largest error of the outputs, relative to the allowed error.

        A kernel is correct if this is at most one. A missing output or a NaN makes it infinite.

        Args:
            found: The arguments after the call, by name.
        """
        largest = 0.0
        for name, (values, allowed) in self.expect().items():
            if name not in found or found[name].shape != values.shape:
                return float("inf")
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                error = np.abs(found[name].astype(np.float64) - values)
                ratio = np.where(error == 0, 0, error / allowed)
            if not np.isfinite(ratio).all():
                return float("inf")
            largest = max(largest, float(ratio.max(initial=0)))
        return largest


# Makes the test case of a signature of a class, with values of its symbolic extents and random
# numbers: the arguments by name, and what computes the expected outputs.
MakeCase = Callable[
    [Any, Mapping[str, int], np.random.Generator], tuple[Mapping[str, Array], Callable[[], Any]]
]
_CASES: dict[type[Signature], MakeCase] = {
    LinearSignature: linear_case,
    QuantizedLinearSignature: quantized_linear_case,
    RowwiseSignature: rowwise_case,
    QuantizeRowsSignature: quantize_rows_case,
    AttentionSignature: attention_case,
    CachedAttentionSignature: cached_attention_case,
    AppendSignature: append_case,
}


def make_kernel_case(op: Signature, extents: Mapping[str, int], seed: int = 0) -> KernelCase:
    """Make a test case of random arguments for an operation.

    Args:
        op: The operation.
        extents: Values of its symbolic extents.
        seed: Of the numbers.

    Raises:
        KeyError: The operation has no oracle.
    """
    arguments, expect = _CASES[type(op)](op, extents, np.random.default_rng(seed))
    for each in op.parameters:
        found = arguments[each.name]
        assert found.shape == each.known_shape(extents) and str(found.dtype) == each.dtype, each
    ordered = {each.name: np.ascontiguousarray(arguments[each.name]) for each in op.parameters}
    return KernelCase(ordered, expect)
