"""The epilogue of a linear layer: what kernels add to their sums, and how they store them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.ops.signatures import LinearLayer


def add_epilogue(
    op: LinearLayer,
    total: tirx.Expr,
    bias: tirx.Buffer,
    residual: tirx.Buffer,
    row: Any,
    j: Any,
) -> tirx.Expr:
    """Add bias and residual, where the layer has them, to the sum of a row and a feature.

    Args:
        op: The linear layer.
        total: The sum.
        bias: ``(N,)`` float32.
        residual: ``(M, N)`` float32.
        row: The row.
        j: The feature.
    """
    if op.bias:
        total = total + bias[j]
    return total + residual[row, j] if op.residual else total


@dataclass(frozen=True)
class Epilogue:
    """The epilogue of kernels that store the sums of some features at once.

    Attributes:
        op: The linear layer.
        width: Features that are stored at once; the last time fewer, unless it divides their
            number.
    """

    op: LinearLayer
    width: int

    def columns(self, count: int) -> Any:
        """Loop over the features that are stored at once: vectorized, unless the last are fewer."""
        return T.vectorized(count) if self._is_whole else T.serial(count)

    def is_feature(self, j: tirx.Expr) -> Any:
        """Whether a column belongs to a feature: those behind the last one do not."""
        return True if self._is_whole else j < self.op.features

    def value(
        self, total: tirx.Expr, bias: tirx.Buffer, residual: tirx.Buffer, row: Any, j: Any
    ) -> tirx.Expr:
        """Add bias and residual, where the layer has them, to the sum of a row and a feature."""
        return add_epilogue(self.op, total, bias, residual, row, j)

    @property
    def _is_whole(self) -> bool:
        return self.op.features % self.width == 0
