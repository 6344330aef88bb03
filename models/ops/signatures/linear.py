"""The signatures of linear layers, over the panels of `models.panels`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mvlm.models.ops.signatures.signature import Parameter, Signature, rows_extent
from mvlm.models.ops.signatures.stored import stored_parameters
from mvlm.models.panels import FEATURES, PanelLayout, panel_count, panel_layout
from mvlm.models.quantization import GROUP_SIZE, WEIGHT_FORMATS, WeightFormat


@dataclass(frozen=True)
class _LinearLayer(Signature):
    """What the linear layers of both kinds of activations have in common.

    Attributes:
        rows: M; None where it is symbolic.
        width: K.
        features: N.
        weights: The name of the weights' format.
        bias: Whether ``bias`` is added to every row.
        residual: Whether ``residual`` is added to the result.
    """

    rows: int | None
    width: int
    features: int
    weights: str
    bias: bool
    residual: bool

    @property
    def weight_format(self) -> WeightFormat:
        """How the weights are stored."""
        return WEIGHT_FORMATS[self.weights]

    @property
    def panels(self) -> int:
        """Panels of the matrix."""
        return panel_count(self.features)

    @property
    def groups(self) -> int:
        """Groups of 32 along K."""
        return -(-self.width // GROUP_SIZE)

    @property
    def weight_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the matrix is stored in."""
        raise NotImplementedError

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
class LinearSignature(_LinearLayer):
    """``y = x W``: float32 activations, float or packed weights.

    Parameters: ``x (M, K)``, the weights, ``bias (N,)``, ``residual (M, N)``, ``y (M, N)``.
    """

    OP: ClassVar[str] = "linear"

    @property
    def weight_parameters(self) -> tuple[Parameter, ...]:
        """``weight``, or ``integers`` and ``scales``, in panels."""
        return stored_parameters(self.weight_format, (self.panels, self.width, FEATURES), axis=1)

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        x = Parameter("x", (rows_extent(self.rows), self.width), "float32")
        return (x, *self.weight_parameters, *self._epilogue)


@dataclass(frozen=True)
class PanelLinearSignature(_LinearLayer):
    """``y = x W``: integer activations, and integer weights in panels that are made for them.

    Parameters: ``x (M, K)``, ``x_scales (M, activation_scales)``, with unsigned weights
    ``zero_point_correction (M, groups)``, the panels ``weight``, ``scales`` and ``row_scales``,
    ``bias (N,)``, ``residual (M, N)``, ``y (M, N)``.

    Attributes:
        activation_scales: Scales of a row.
    """

    OP: ClassVar[str] = "panel_linear"

    activation_scales: int

    @property
    def layout(self) -> PanelLayout:
        """How a group lies within a panel."""
        return panel_layout(self.weight_format)

    @property
    def has_zero_point(self) -> bool:
        """Whether weights are unsigned, so that the product needs a correction."""
        return self.layout.zero != 0

    @property
    def groups_per_scale(self) -> int:
        """Groups of a row that share an activation scale."""
        return self.groups // self.activation_scales

    @property
    def weight_parameters(self) -> tuple[Parameter, ...]:
        """``weight``, ``scales`` and ``row_scales``, in panels."""
        arrays = self.layout.arrays(self.width, self.features)
        names = {"q_weight": "weight", "q_scale": "scales", "q_row_scale": "row_scales"}
        return tuple(Parameter(names[key], *array) for key, array in arrays.items())

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        rows = rows_extent(self.rows)
        correction = Parameter("zero_point_correction", (rows, self.groups), "int32")
        return (
            Parameter("x", (rows, self.width), self.layout.activations),
            Parameter("x_scales", (rows, self.activation_scales), "float32"),
            *((correction,) if self.has_zero_point else ()),
            *self.weight_parameters,
            *self._epilogue,
        )
