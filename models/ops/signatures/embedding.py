"""The signature of an embedding lookup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mvlm.models.ops.signatures.signature import (
    Parameter,
    Signature,
    rows_extent,
    stored_parameters,
)
from mvlm.models.quantization import WeightFormat, format_named
from mvlm.models.weight_layout import ROWS, Matrix


@dataclass(frozen=True)
class EmbeddingSignature(Signature):
    """Looking rows of a table up.

    Parameters: ``ids (n,)``, the table, ``rows (n, width)``.

    Attributes:
        count: Ids; None where it is symbolic.
        vocabulary: Rows of the table.
        width: Of a row.
        weights: The name of the table's format.
    """

    OP: ClassVar[str] = "embedding"

    count: int | None
    vocabulary: int
    width: int
    weights: str

    @property
    def weight_format(self) -> WeightFormat:
        """How the table is stored."""
        return format_named(self.weights)

    @property
    def matrix(self) -> Matrix:
        """The table, whose layout is `ROWS`."""
        return Matrix(self.vocabulary, self.width, self.weight_format)

    @property
    def weight_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the table is stored in."""
        return stored_parameters(ROWS, self.matrix)

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        count = rows_extent(self.count)
        rows = Parameter("rows", (count, self.width), "float32", is_written=True)
        return (Parameter("ids", (count,), "int32"), *self.weight_parameters, rows)
