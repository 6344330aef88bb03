"""The signature of an embedding lookup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from mvlm.models.ops.signatures.signature import (
    Parameter,
    RowCount,
    Signature,
    rows_extent,
    stored_parameters,
)
from mvlm.models.quantization import Activations, WeightFormat, format_named
from mvlm.models.weight_layout import ROWS, Matrix, WeightLayout, layout_named


@dataclass(frozen=True)
class EmbeddingSignature(Signature):
    """Looking rows of a table up.

    Parameters: ``ids (n,)``, the table, ``rows (n, width)``.

    Attributes:
        count: Ids; None where it is symbolic.
        vocabulary: Rows of the table.
        width: Of a row.
        weights: The name of the table's format.
        layout: The name of its layout.
        activations: The dtype that the layout is for: of a table that is the output head as well,
            what that is multiplied with.
    """

    OP: ClassVar[str] = "embedding"

    count: RowCount
    vocabulary: int
    width: int
    weights: str
    layout: str = ROWS.name
    activations: str = "float32"

    @property
    def weight_format(self) -> WeightFormat:
        """How the table is stored."""
        return format_named(self.weights)

    @property
    def matrix(self) -> Matrix:
        """The table."""
        activations = cast(Activations, self.activations)
        return Matrix(self.vocabulary, self.width, self.weight_format, activations)

    @property
    def weight_layout(self) -> WeightLayout:
        """The table's layout."""
        return layout_named(self.layout)

    @property
    def weight_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the table is stored in."""
        return stored_parameters(self.weight_layout, self.matrix)

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        count = rows_extent(self.count)
        rows = Parameter("rows", (count, self.width), "float32", is_written=True)
        return (Parameter("ids", (count,), "int32"), *self.weight_parameters, rows)
