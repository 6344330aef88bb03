"""Linear layers, ``y = x W``, over weights in any layout (see `models.weight_layout`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import (
    call,
    define,
    group_offset,
    group_scale,
    known_rows,
    placeholders,
    quantized_value,
    stored_value,
)
from mvlm.models.ops.rowwise import IDENTITY, Prologue, as_rows, quantize_rows, rowwise
from mvlm.models.ops.signatures import (
    LinearLayer,
    LinearSignature,
    QuantizedLinearSignature,
    RowCount,
)
from mvlm.models.quantization import GROUP_SIZE, fit_groups_per_scale
from mvlm.models.weight_layout import LinearFormat

# The parameters that quantized activations come in, as `quantize_rows` returns them.
_ACTIVATIONS = ("x", "x_scales", "zero_point_correction", "zero_point_halves", "offset_sums")


def linear(
    x: nn.Tensor,
    weight: tuple[nn.Tensor, ...],
    features: int,
    linear_format: LinearFormat,
    *,
    prologue: Prologue = IDENTITY,
    bias: nn.Tensor | None = None,
    residual: nn.Tensor | None = None,
) -> nn.Tensor:
    """Multiply every position with a matrix.

    Args:
        x: ``(..., K)`` float32, or the input of `prologue`.
        weight: The arrays of the matrix in its layout.
        features: N.
        linear_format: The weights' format and layout, and whether `x` is quantized before.
        prologue: The row-wise function that is applied to `x` first.
        bias: ``(N,)`` float32, added to every row.
        residual: ``(..., N)`` float32, added to the result.

    Returns:
        ``(..., N)`` float32.
    """
    *leading, _ = x.shape
    scheme = linear_format.scheme
    if scheme.activations != "float32":
        zero, most = linear_format.correction, scheme.groups_per_scale
        quantized = quantize_rows(as_rows(x), prologue, scheme.activations, zero, most)
    elif prologue.name == IDENTITY.name:
        quantized = (as_rows(x),)
    else:
        quantized = (as_rows(rowwise(x, prologue)),)
    rows, width = quantized[0].shape
    has_bias, has_residual = bias is not None, residual is not None
    op = linear_signature(
        linear_format, known_rows(rows), width, features, bias=has_bias, residual=has_residual
    )
    arguments: dict[str, nn.Tensor | None] = {
        **dict(zip(_ACTIVATIONS, quantized, strict=False)),
        **{each.name: t for each, t in zip(op.weight_parameters, weight, strict=True)},
        "bias": bias,
        "residual": None if residual is None else as_rows(residual),
    }
    definition = (
        linear_definition(op)
        if isinstance(op, LinearSignature)
        else quantized_linear_definition(op)
    )
    (y,) = call(definition, op, f"linear_{features}x{width}", arguments)
    return nn.op.reshape(y, (*leading, features))


def linear_signature(
    linear_format: LinearFormat,
    rows: RowCount,
    width: int,
    features: int,
    *,
    bias: bool = False,
    residual: bool = False,
) -> LinearSignature | QuantizedLinearSignature:
    """Return the signature of a linear layer.

    Args:
        linear_format: The weights' format and layout, and whether activations are quantized.
        rows: M; None where it is symbolic.
        width: K.
        features: N.
        bias: Whether a bias is added.
        residual: Whether a residual is added.
    """
    scheme, layout = linear_format.scheme, linear_format.layout.name
    weights = scheme.weights.name
    if scheme.activations == "float32":
        return LinearSignature(rows, width, features, weights, layout, bias, residual)
    matrix = linear_format.matrix(features, width)
    scales = matrix.groups // fit_groups_per_scale(matrix.groups, scheme.groups_per_scale)
    return QuantizedLinearSignature(
        rows, matrix.stored_width, features, weights, layout, bias, residual, scales
    )


def linear_definition(op: LinearSignature) -> tirx.PrimFunc:
    """Return the definition for float32 activations."""
    inputs = placeholders(op)
    x = inputs["x"]
    k = te.reduce_axis((0, op.width), name="k")

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        return te.sum(x[i, k] * stored_value(op.weight_layout, op.matrix, inputs, j, k), axis=k)

    return _with_epilogue(op, inputs, product, ("bias", "residual"))


def quantized_linear_definition(op: QuantizedLinearSignature) -> tirx.PrimFunc:
    """Return the definition for integer activations."""
    inputs, layout, matrix = placeholders(op), op.weight_layout, op.matrix
    x, x_scales, scales = inputs["x"], inputs["x_scales"], inputs["scales"]
    g = te.reduce_axis((0, op.groups), name="g")
    k = te.reduce_axis((0, GROUP_SIZE), name="k")

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        at = g * GROUP_SIZE + k
        x_scale = x_scales[i, g // op.groups_per_scale] * op.weight_format.unit
        weight = quantized_value(layout, matrix, inputs, j, at)
        scale = scales[layout.scale(matrix, j, g)]
        if op.weight_format.has_tables:
            weight, scale = weight + group_offset(scale), group_scale(scale)
        else:
            scale = scale.astype("float32")
        return te.sum(x[i, at].astype("float32") * x_scale * weight * scale, axis=[g, k])

    return _with_epilogue(op, inputs, product, ("row_scales", "bias", "residual"))


def _with_epilogue(
    op: LinearLayer,
    inputs: Mapping[str, te.Tensor],
    product: Callable[[tirx.Expr, tirx.Expr], tirx.Expr],
    epilogue: Sequence[str],
) -> tirx.PrimFunc:
    """Define a linear layer by its products, and the parameters that are applied to them."""
    steps = [name for name in epilogue if name in inputs]
    names = [*["products", *(f"with_{name}" for name in steps)][:-1], "y"]
    shape = (inputs["x"].shape[0], op.features)
    y = te.compute(shape, product, name=names[0])
    for step, name in zip(steps, names[1:], strict=True):
        y = _apply(op, step, y, inputs[step], name)
    return define(op, inputs, y)


def _apply(
    op: LinearLayer,
    step: str,
    y: te.Tensor,
    operand: te.Tensor,
    name: str,
) -> te.Tensor:
    """Apply an optional parameter to the products ``(rows, N)``."""

    def value(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        if step == "row_scales":
            return y[i, j] * operand[op.weight_layout.row_scale(op.matrix, j)]
        return y[i, j] + (operand[j] if step == "bias" else operand[i, j])

    return te.compute(y.shape, value, name=name)
