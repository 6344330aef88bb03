"""The parameters that a stored matrix takes."""

from __future__ import annotations

from mvlm.models.ops.signatures.signature import Parameter
from mvlm.models.weight_layout import Matrix, WeightLayout


def stored_parameters(layout: WeightLayout, matrix: Matrix) -> tuple[Parameter, ...]:
    """Return the parameters of a matrix: ``weight``, ``scales`` and ``row_scales``."""
    return tuple(Parameter(name, *array) for name, array in layout.arrays(matrix).items())
