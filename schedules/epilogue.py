"""The epilogue of a linear layer, which every kernel set applies to its sums."""

from __future__ import annotations

from typing import Any

from tvm import tirx

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
