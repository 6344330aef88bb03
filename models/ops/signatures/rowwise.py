"""The signatures of row-wise functions, alone and followed by a quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mvlm.models.ops.signatures.signature import (
    Parameter,
    RowCount,
    Signature,
    rows_extent,
    zero_point_parameters,
)
from mvlm.models.quantization import GROUP_SIZE, is_of_levels

# The float32 parameters ``(K,)`` of a function; all others have none.
_WEIGHTS = {"rms_norm": ("weight",), "layer_norm": ("weight", "bias")}
# SwiGLU: of two halves of a row it makes one.
_HALVING = "silu_product"


@dataclass(frozen=True)
class RowFunction(Signature):
    """A function of every row.

    Attributes:
        rows: None where it is symbolic.
        width: Of a row of ``x``.
        prologue: The function's name, one of `models.ops.rowwise.PROLOGUES`.
        eps: Added to the variance by a normalization.
    """

    rows: RowCount
    width: int
    prologue: str
    eps: float

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the function's own parameters."""
        return _WEIGHTS.get(self.prologue, ())

    @property
    def values(self) -> int:
        """Values that the function makes of a row."""
        return self.width // 2 if self.prologue == _HALVING else self.width

    @property
    def _inputs(self) -> tuple[Parameter, ...]:
        weights = (Parameter(name, (self.values,), "float32") for name in self.weights)
        return (Parameter("x", (rows_extent(self.rows), self.width), "float32"), *weights)


@dataclass(frozen=True)
class RowwiseSignature(RowFunction):
    """A row-wise function alone.

    Parameters: ``x (M, width)``, ``weight`` and ``bias`` of a normalization, ``y (M, values)``.
    """

    OP: ClassVar[str] = "rowwise"

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        shape = (rows_extent(self.rows), self.values)
        return (*self._inputs, Parameter("y", shape, "float32", is_written=True))


@dataclass(frozen=True)
class QuantizeRowsSignature(RowFunction):
    """A row-wise function, and the quantization of its values in groups of 32.

    Parameters: ``x (M, width)``, ``weight`` and ``bias`` of a normalization, ``integers (M, groups
    * 32)``, ``scales (M, activation_scales)`` and, with a zero point, ``zero_point_correction
    (M, groups)``: the sums of the groups' integers times minus the zero point. Where that is one of
    levels (`is_of_levels`), it is that of bytes there (`byte_zero_point`), and ``zero_point_halves
    (M, groups, 2)`` has the two parts of each sum times minus that of levels: of the integers at
    ``k % 4 < 2``, and of the others. CPUs that add products of neighbouring bytes in 16 bits add
    them in these halves. ``offset_sums (M, groups)`` has the sums of the groups'
    integers in float32, times a step of levels' offsets (`OFFSET_STEP`).

    Attributes:
        dtype: Of the integers.
        zero_point: Of the weights that the integers will be multiplied with.
        activation_scales: Scales of a row.
    """

    OP: ClassVar[str] = "quantize_rows"

    dtype: str
    zero_point: int
    activation_scales: int

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return -(-self.values // GROUP_SIZE)

    @property
    def groups_per_scale(self) -> int:
        """Groups that share a scale."""
        return self.groups // self.activation_scales

    @property
    def has_zero_point(self) -> bool:
        """Whether the operation computes the zero-point correction."""
        return self.zero_point != 0

    @property
    def has_levels(self) -> bool:
        """Whether it computes what levels need: the correction's halves, and offsets' sums."""
        return is_of_levels(self.zero_point)

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        rows, groups = rows_extent(self.rows), self.groups
        return (
            *self._inputs,
            Parameter("integers", (rows, groups * GROUP_SIZE), self.dtype, is_written=True),
            Parameter("scales", (rows, self.activation_scales), "float32", is_written=True),
            *zero_point_parameters(rows, groups, self.zero_point, is_written=True),
        )
