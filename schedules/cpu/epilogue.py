"""The epilogue of a linear layer: what is added to a panel's sums, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.ops.signatures import LinearLayer
from mvlm.schedules.cpu.panels import FEATURES
from mvlm.schedules.epilogue import add_epilogue


@dataclass(frozen=True)
class Epilogue:
    """The epilogue of a linear layer; its kernels store the 16 sums of a row and a panel by it.

    Attributes:
        op: The linear layer.
    """

    op: LinearLayer

    def columns(self, count: int) -> Any:
        """Loop over a panel's features: vectorized, unless the last panel is not full."""
        return T.vectorized(count) if self._has_whole_panels else T.serial(count)

    def is_feature(self, j: tirx.Expr) -> Any:
        """Whether a column of a panel belongs to a feature."""
        return True if self._has_whole_panels else j < self.op.features

    def value(
        self, total: tirx.Expr, bias: tirx.Buffer, residual: tirx.Buffer, row: Any, j: Any
    ) -> tirx.Expr:
        """Add bias and residual, where the layer has them, to the sum of a row and a feature."""
        return add_epilogue(self.op, total, bias, residual, row, j)

    @property
    def _has_whole_panels(self) -> bool:
        return self.op.features % FEATURES == 0
