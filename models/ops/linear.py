"""Linear layers, ``y = x W``, over the panels of `models.panels`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import call, define, known_rows, placeholders
from mvlm.models.ops.rowwise import IDENTITY, Prologue, as_rows, quantize_rows, rowwise
from mvlm.models.ops.signatures import LinearSignature, PanelLinearSignature
from mvlm.models.ops.stored import stored_value
from mvlm.models.panels import FEATURES, panel_layout
from mvlm.models.quantization import GROUP_SIZE, Scheme, fit_groups_per_scale


def linear(
    x: nn.Tensor,
    weight: tuple[nn.Tensor, ...],
    features: int,
    scheme: Scheme,
    *,
    prologue: Prologue = IDENTITY,
    bias: nn.Tensor | None = None,
    residual: nn.Tensor | None = None,
) -> nn.Tensor:
    """Multiply every position with a matrix.

    Args:
        x: ``(..., K)`` float32, or the input of `prologue`.
        weight: One float tensor, or integers and scales, in panels.
        features: N.
        scheme: The weights' format, and whether `x` is quantized before.
        prologue: The row-wise function that is applied to `x` first.
        bias: ``(N,)`` float32, added to every row.
        residual: ``(..., N)`` float32, added to the result.

    Returns:
        ``(..., N)`` float32.
    """
    *leading, _ = x.shape
    if scheme.activations != "float32":
        zero, most = panel_layout(scheme.weights).zero, scheme.groups_per_scale
        quantized = quantize_rows(as_rows(x), prologue, scheme.activations, zero, most)
    elif prologue.name == IDENTITY.name:
        quantized = (as_rows(x),)
    else:
        quantized = (as_rows(rowwise(x, prologue)),)
    rows, width = quantized[0].shape
    has_bias, has_residual = bias is not None, residual is not None
    op = linear_signature(
        scheme, known_rows(rows), width, features, bias=has_bias, residual=has_residual
    )
    arguments: dict[str, nn.Tensor | None] = {
        **dict(zip(("x", "x_scales", "zero_point_correction"), quantized, strict=False)),
        **{each.name: t for each, t in zip(op.weight_parameters, weight, strict=True)},
        "bias": bias,
        "residual": None if residual is None else as_rows(residual),
    }
    definition = (
        linear_definition(op) if isinstance(op, LinearSignature) else panel_linear_definition(op)
    )
    (y,) = call(definition, op, f"linear_{features}x{width}", arguments)
    return nn.op.reshape(y, (*leading, features))


def linear_signature(
    scheme: Scheme,
    rows: int | None,
    width: int,
    features: int,
    *,
    bias: bool = False,
    residual: bool = False,
) -> LinearSignature | PanelLinearSignature:
    """Return the signature of a linear layer of a scheme.

    Args:
        scheme: The weights' format, and whether activations are quantized.
        rows: M; None where it is symbolic.
        width: K.
        features: N.
        bias: Whether a bias is added.
        residual: Whether a residual is added.
    """
    weights = scheme.weights.name
    if scheme.activations == "float32":
        return LinearSignature(rows, width, features, weights, bias, residual)
    groups = -(-width // GROUP_SIZE)
    scales = groups // fit_groups_per_scale(groups, scheme.groups_per_scale)
    whole = groups * GROUP_SIZE
    return PanelLinearSignature(rows, whole, features, weights, bias, residual, scales)


def linear_definition(op: LinearSignature) -> tirx.PrimFunc:
    """Return the definition for float32 activations."""
    inputs = placeholders(op)
    x, weight_format = inputs["x"], op.weight_format
    k = te.reduce_axis((0, op.width), name="k")

    def weight(j: tirx.Expr) -> tirx.Expr:
        return stored_value(weight_format, inputs, (j // FEATURES, k, j % FEATURES), axis=1)

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        return te.sum(x[i, k] * weight(j), axis=k)

    return _with_epilogue(op, inputs, product, ("bias", "residual"))


def panel_linear_definition(op: PanelLinearSignature) -> tirx.PrimFunc:
    """Return the definition for integer activations."""
    inputs, layout = placeholders(op), op.layout
    x, x_scales, scales = inputs["x"], inputs["x_scales"], inputs["scales"]
    g = te.reduce_axis((0, op.groups), name="g")
    k = te.reduce_axis((0, GROUP_SIZE), name="k")

    def weight(j: tirx.Expr) -> tirx.Expr:
        half, step = k // (layout.depth * layout.steps), k // layout.depth % layout.steps
        place = j % FEATURES * layout.depth + k % layout.depth
        stored = inputs["weight"][j // FEATURES, g, step, place]
        if layout.bits == 4:
            stored = (stored >> (half * 4).astype("uint8")) & tirx.const(15, "uint8")
        return stored.astype("float32") - float(layout.zero)

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        x_scale = x_scales[i, g // op.groups_per_scale] * layout.unit
        left = x[i, g * GROUP_SIZE + k].astype("float32") * x_scale
        scale = scales[j // FEATURES, g, j % FEATURES].astype("float32")
        return te.sum(left * weight(j) * scale, axis=[g, k])

    return _with_epilogue(op, inputs, product, ("row_scales", "bias", "residual"))


# What an optional parameter does to the products ``(rows, N)``.
_EPILOGUE: dict[str, Callable[..., tirx.Expr]] = {
    "row_scales": lambda y, scales, i, j: y[i, j] * scales[j // FEATURES, j % FEATURES],
    "bias": lambda y, bias, i, j: y[i, j] + bias[j],
    "residual": lambda y, residual, i, j: y[i, j] + residual[i, j],
}


def _with_epilogue(
    op: LinearSignature | PanelLinearSignature,
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
        y = _apply(step, y, inputs[step], name)
    return define(op, inputs, y)


def _apply(step: str, y: te.Tensor, operand: te.Tensor, name: str) -> te.Tensor:
    return te.compute(y.shape, lambda i, j: _EPILOGUE[step](y, operand, i, j), name=name)
