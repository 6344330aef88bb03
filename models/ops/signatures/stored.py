"""The parameters that a stored matrix takes."""

from __future__ import annotations

from mvlm.models.ops.signatures.signature import Parameter
from mvlm.models.quantization import GROUP_SIZE, WeightFormat


def stored_parameters(
    weight_format: WeightFormat, shape: tuple[int, ...], axis: int
) -> tuple[Parameter, ...]:
    """Return the parameters of a matrix: ``weight``, or ``integers``, ``scales``, ``row_scales``.

    Args:
        weight_format: How the weights are stored.
        shape: Of the weights.
        axis: The one along which weights are grouped and packed.
    """
    if not weight_format.is_integer:
        return (Parameter("weight", shape, weight_format.dtype),)
    before, after = shape[:axis], shape[axis + 1 :]
    elements, groups = weight_format.elements(shape[axis]), -(-shape[axis] // GROUP_SIZE)
    stored = (
        Parameter("integers", (*before, elements, *after), weight_format.dtype),
        Parameter("scales", (*before, groups, *after), weight_format.scale_dtype),
    )
    if weight_format.has_row_scales:
        return (*stored, Parameter("row_scales", (*before, *after), "float32"))
    return stored
