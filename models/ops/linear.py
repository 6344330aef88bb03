"""Linear layers, ``y = x W``, over the panels of `models.panels`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.ops.rowwise import IDENTITY, Prologue, as_rows, quantize_rows, rowwise
from mvlm.models.ops.stored import attributes, stored_placeholders, stored_value
from mvlm.models.panels import FEATURES, PanelLayout, panel_count, panel_layout
from mvlm.models.quantization import GROUP_SIZE, Scheme, WeightFormat


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
    epilogue = _Epilogue(bias is not None, residual is not None)
    inputs: tuple[nn.Tensor, ...]
    if scheme.activations == "float32":
        inputs = (as_rows(x if prologue.name == IDENTITY.name else rowwise(x, prologue)),)
        rows, width = inputs[0].shape
        function = _float_linear(rows, width, features, scheme.weights, epilogue)
    else:
        layout = panel_layout(scheme.weights)
        inputs = quantize_rows(
            as_rows(x), prologue, scheme.activations, layout.zero, scheme.groups_per_scale
        )
        rows, width = inputs[0].shape
        activation_scales = int(inputs[1].shape[1])
        function = _panel_linear(rows, width, features, layout, activation_scales, epilogue)
    arguments = [*inputs, *weight]
    if bias is not None:
        arguments.append(bias)
    if residual is not None:
        arguments.append(as_rows(residual))
    out = nn.Tensor.placeholder((rows, features), "float32")
    y = nn.op.tensor_ir_op(function, f"linear_{features}x{width}", arguments, out)
    return nn.op.reshape(y, (*leading, features))


@dataclass(frozen=True)
class _Epilogue:
    """The addends of the products: whether there is a bias, and a residual."""

    bias: bool
    residual: bool

    def define(
        self, name: str, inputs: list[te.Tensor], y: te.Tensor, **marks: int | str | float
    ) -> tirx.PrimFunc:
        """Make the operation `name` of its inputs and the products ``(rows, N)``."""
        if self.bias:
            bias = te.placeholder((y.shape[1],), "float32", name="bias")
            y, inputs = _sum(y, lambda _, j: bias[j]), [*inputs, bias]
        if self.residual:
            residual = te.placeholder(y.shape, "float32", name="residual")
            y, inputs = _sum(y, lambda i, j: residual[i, j]), [*inputs, residual]
        return define(name, [*inputs, y], bias=self.bias, residual=self.residual, **marks)


def _sum(y: te.Tensor, addend: Callable[[tirx.Expr, tirx.Expr], tirx.Expr]) -> te.Tensor:
    return te.compute(y.shape, lambda i, j: y[i, j] + addend(i, j), name="sum")


def _float_linear(
    rows: object, width: int, features: int, weight_format: WeightFormat, epilogue: _Epilogue
) -> tirx.PrimFunc:
    m = row_count(rows)
    x = te.placeholder((m, width), "float32", name="x")
    panels = panel_count(features)
    weight = stored_placeholders(weight_format, (panels, width, FEATURES), axis=1)
    k = te.reduce_axis((0, width), name="k")

    def stored(j: tirx.Expr) -> tirx.Expr:
        return stored_value(weight_format, weight, (j // FEATURES, k, j % FEATURES), axis=1)

    y = te.compute((m, features), lambda i, j: te.sum(x[i, k] * stored(j), axis=k), name="y")
    return epilogue.define("linear", [x, *weight], y, **attributes(weight_format))


def _panel_linear(
    rows: object,
    width: int,
    features: int,
    layout: PanelLayout,
    activation_scales: int,
    epilogue: _Epilogue,
) -> tirx.PrimFunc:
    m, groups = row_count(rows), width // GROUP_SIZE
    groups_per_scale = groups // activation_scales
    x = te.placeholder((m, width), layout.activations, name="x")
    x_scales = te.placeholder((m, activation_scales), "float32", name="x_scales")
    zero_point_correction = te.placeholder((m, groups), "int32", name="zero_point_correction")
    arrays = [
        te.placeholder(shape, dtype, name=name.removeprefix("q_"))
        for name, (shape, dtype) in layout.arrays(width, features).items()
    ]
    panels, scales, *row_scales = arrays
    g = te.reduce_axis((0, groups), name="g")
    k = te.reduce_axis((0, GROUP_SIZE), name="k")

    def weight(j: tirx.Expr) -> tirx.Expr:
        half, step = k // (layout.depth * layout.steps), k // layout.depth % layout.steps
        stored = panels[j // FEATURES, g, step, j % FEATURES * layout.depth + k % layout.depth]
        if layout.bits == 4:
            stored = (stored >> (half * 4).astype("uint8")) & tirx.const(15, "uint8")
        return stored.astype("float32") - float(layout.zero)

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        x_scale = x_scales[i, g // groups_per_scale] * layout.unit
        left = x[i, g * GROUP_SIZE + k].astype("float32") * x_scale
        return left * weight(j) * scales[j // FEATURES, g, j % FEATURES].astype("float32")

    y = te.compute((m, features), lambda i, j: te.sum(product(i, j), axis=[g, k]), name="y")
    for scale in row_scales:
        y = _times(y, scale)
    inputs = [x, x_scales, *([zero_point_correction] if layout.zero else []), *arrays]
    marks = {"bits": layout.bits, "unit": layout.unit, "row_scales": layout.has_row_scales}
    return epilogue.define("panel_linear", inputs, y, **marks)


def _times(y: te.Tensor, scale: te.Tensor) -> te.Tensor:
    return te.compute(
        y.shape, lambda i, j: y[i, j] * scale[j // FEATURES, j % FEATURES], name="scaled"
    )
