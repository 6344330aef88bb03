"""The signatures of linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mvlm.models.ops.signatures.signature import (
    Parameter,
    RowCount,
    Signature,
    rows_extent,
    stored_parameters,
    zero_point_parameters,
)
from mvlm.models.quantization import Activations, WeightFormat, format_named
from mvlm.models.weight_layout import Matrix, WeightLayout, layout_named


@dataclass(frozen=True)
class LinearLayer(Signature):
    """What the linear layers of both kinds of activations have in common.

    Attributes:
        rows: M; None where it is symbolic.
        width: K.
        features: N.
        weights: The name of the weights' format.
        layout: The name of their layout.
        bias: Whether ``bias`` is added to every row.
        residual: Whether ``residual`` is added to the result.
    """

    rows: RowCount
    width: int
    features: int
    weights: str
    layout: str
    bias: bool
    residual: bool

    @property
    def weight_format(self) -> WeightFormat:
        """How the weights are stored."""
        return format_named(self.weights)

    @property
    def weight_layout(self) -> WeightLayout:
        """How the weights are arranged."""
        return layout_named(self.layout)

    @property
    def activations(self) -> Activations:
        """The dtype of ``x``."""
        raise NotImplementedError

    @property
    def matrix(self) -> Matrix:
        """The matrix, as its layout takes it."""
        return Matrix(self.features, self.width, self.weight_format, self.activations)

    @property
    def groups(self) -> int:
        """Groups of 32 along K."""
        return self.matrix.groups

    @property
    def weight_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the matrix is stored in: its layout's arrays."""
        return stored_parameters(self.weight_layout, self.matrix)

    @property
    def _epilogue(self) -> tuple[Parameter, ...]:
        rows = rows_extent(self.rows)
        bias = Parameter("bias", (self.features,), "float32")
        residual = Parameter("residual", (rows, self.features), "float32")
        return (
            *((bias,) if self.bias else ()),
            *((residual,) if self.residual else ()),
            Parameter("y", (rows, self.features), "float32", is_written=True),
        )


@dataclass(frozen=True)
class LinearSignature(LinearLayer):
    """``y = x W``: float32 activations, float or integer weights.

    Parameters: ``x (M, K)``, the weights, ``bias (N,)``, ``residual (M, N)``, ``y (M, N)``.
    """

    OP: ClassVar[str] = "linear"

    @property
    def activations(self) -> Activations:
        """Float32."""
        return "float32"

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        x = Parameter("x", (rows_extent(self.rows), self.width), "float32")
        return (x, *self.weight_parameters, *self._epilogue)


@dataclass(frozen=True)
class QuantizedLinearSignature(LinearLayer):
    """``y = x W``: integer activations and integer weights.

    Parameters: ``x (M, K)``, ``x_scales (M, activation_scales)``, where the layout has a correction
    ``zero_point_correction (M, groups)``, ``zero_point_halves (M, groups, 2)`` and ``offset_sums
    (M, groups)`` (see `QuantizeRowsSignature`), the weights, ``bias (N,)``, ``residual (M, N)``,
    ``y (M, N)``. K is whole groups.

    Attributes:
        activation_scales: Scales of a row.
    """

    OP: ClassVar[str] = "quantized_linear"

    activation_scales: int

    @property
    def activations(self) -> Activations:
        """As the format's integers ask for."""
        return self.weight_format.integer_activations

    @property
    def zero_point(self) -> int:
        """The zero point that ``zero_point_correction`` accounts for; 0 without one."""
        return self.weight_layout.correction(self.weight_format, self.activations)

    @property
    def has_zero_point(self) -> bool:
        """Whether the product needs a correction."""
        return self.zero_point != 0

    @property
    def groups_per_scale(self) -> int:
        """Groups of a row that share an activation scale."""
        return self.groups // self.activation_scales

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        rows = rows_extent(self.rows)
        return (
            Parameter("x", (rows, self.width), self.activations),
            Parameter("x_scales", (rows, self.activation_scales), "float32"),
            *zero_point_parameters(rows, self.groups, self.zero_point),
            *self.weight_parameters,
            *self._epilogue,
        )
