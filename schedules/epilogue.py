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
    place: tuple[Any, Any],
    factor: tirx.Expr | None = None,
) -> tirx.Expr:
    """Add bias and residual, where the layer has them, to the sum of a row and a feature.

    A factor and the first addition are one operation, rounded once: whether LLVM joins them by
    itself depends on what is around them, and a row's outputs shall not.

    Args:
        op: The linear layer.
        total: The sum.
        bias: ``(N,)`` float32.
        residual: ``(M, N)`` float32.
        place: The row and the feature.
        factor: What the sum is multiplied by; 1 if None.
    """
    row, j = place
    added = [bias[j]] * op.bias + [residual[row, j]] * op.residual
    if factor is not None:
        total = T.fma(total, factor, added.pop(0)) if added else total * factor
    for each in added:
        total = total + each
    return total


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
        self,
        total: tirx.Expr,
        bias: tirx.Buffer,
        residual: tirx.Buffer,
        place: tuple[Any, Any],
        factor: tirx.Expr | None = None,
    ) -> tirx.Expr:
        """Add bias and residual to the sum of a row and a feature; see :func:`add_epilogue`."""
        return add_epilogue(self.op, total, bias, residual, place, factor)

    @property
    def _is_whole(self) -> bool:
        return self.op.features % self.width == 0
