"""Linear layers, ``y = x W``, over the panels of `models.panels`."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.ops.int8 import LARGEST_INT8, inverse_scale
from mvlm.models.ops.stored import attributes, stored_placeholders, stored_value
from mvlm.models.panels import DEPTH, FEATURES, panel_bits, panel_count, panel_shapes, panel_zero
from mvlm.models.quantization import GROUP_SIZE, Scheme, Storage


def linear(x: nn.Tensor, weight: tuple[nn.Tensor, ...], features: int, scheme: Scheme) -> nn.Tensor:
    """Multiply every position with a matrix.

    Args:
        x: ``(..., K)`` float32.
        weight: One float tensor, or integers and scales, in panels.
        features: N.
        scheme: What the weights are, and whether `x` is quantized to 8 bits before.

    Returns:
        ``(..., N)`` float32.
    """
    *leading, width = x.shape
    rows = 1
    for extent in leading:
        rows = rows * extent
    flat = nn.op.reshape(x, (rows, width))
    inputs: tuple[nn.Tensor, ...] = (flat,)
    if scheme.activations == "int8":
        inputs = quantize_rows(flat, panel_zero(scheme.weights))
        function = _panel_linear(rows, width, features, scheme.weights)
    else:
        function = _float_linear(rows, width, features, scheme.weights)
    out = nn.Tensor.placeholder((rows, features), "float32")
    y = nn.op.tensor_ir_op(function, f"linear_{features}x{width}", [*inputs, *weight], out)
    return nn.op.reshape(y, (*leading, features))


def quantize_rows(x: nn.Tensor, zero: int) -> tuple[nn.Tensor, ...]:
    """Quantize each group of 32 of every row to 8 bits (see `quantization`).

    Args:
        x: ``(rows, K)`` float32.
        zero: The level that stands for zero in the weights.

    Returns:
        Integers ``(rows, groups * 32)`` int8, the last group filled with zeros; scales
        ``(rows, groups)`` float32; and ``(rows, groups)`` int32, the sums of the integers times
        ``-zero``: what the products with unsigned levels have too much.
    """
    rows, width = x.shape
    groups = -(-width // GROUP_SIZE)
    outs = [
        nn.Tensor.placeholder((rows, groups * GROUP_SIZE), "int8"),
        nn.Tensor.placeholder((rows, groups), "float32"),
        nn.Tensor.placeholder((rows, groups), "int32"),
    ]
    function = _quantize(rows, width, zero)
    return tuple(nn.op.tensor_ir_op(function, "quantize_rows", [x], outs))


def _float_linear(rows: object, width: int, features: int, storage: Storage) -> tirx.PrimFunc:
    m = row_count(rows)
    x = te.placeholder((m, width), "float32", name="x")
    panels = panel_count(features)
    weight = stored_placeholders(storage, (panels, width, FEATURES), axis=1)
    k = te.reduce_axis((0, width), name="k")

    def stored(j: tirx.Expr) -> tirx.Expr:
        return stored_value(storage, weight, (j // FEATURES, k, j % FEATURES), axis=1)

    y = te.compute((m, features), lambda i, j: te.sum(x[i, k] * stored(j), axis=k), name="y")
    return define("linear", [x, *weight, y], **attributes(storage))


def _panel_linear(rows: object, width: int, features: int, storage: Storage) -> tirx.PrimFunc:
    m, groups = row_count(rows), -(-width // GROUP_SIZE)
    bits, zero = panel_bits(storage), panel_zero(storage)
    panel_shape, scale_shape = panel_shapes(width, features, storage)
    steps = panel_shape[2]
    x = te.placeholder((m, groups * GROUP_SIZE), "int8", name="x")
    x_scales = te.placeholder((m, groups), "float32", name="x_scales")
    offsets = te.placeholder((m, groups), "int32", name="offsets")
    panels = te.placeholder(panel_shape, "uint8", name="panels")
    scales = te.placeholder(scale_shape, "float16", name="scales")
    g = te.reduce_axis((0, groups), name="g")
    k = te.reduce_axis((0, GROUP_SIZE), name="k")

    def weight(j: tirx.Expr) -> tirx.Expr:
        half, step = k // (DEPTH * steps), k // DEPTH % steps
        stored = panels[j // FEATURES, g, step, j % FEATURES * DEPTH + k % DEPTH]
        if bits == 4:
            stored = (stored >> (half * 4).astype("uint8")) & tirx.const(15, "uint8")
        return stored.astype("float32") - float(zero)

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        left = x[i, g * GROUP_SIZE + k].astype("float32") * x_scales[i, g]
        return left * weight(j) * scales[j // FEATURES, g, j % FEATURES].astype("float32")

    y = te.compute((m, features), lambda i, j: te.sum(product(i, j), axis=[g, k]), name="y")
    arguments = [x, x_scales, offsets, panels, scales, y]
    return define("panel_linear", arguments, bits=bits)


def _quantize(rows: object, width: int, zero: int) -> tirx.PrimFunc:
    m, groups = row_count(rows), -(-width // GROUP_SIZE)
    x = te.placeholder((m, width), "float32", name="x")
    k = te.reduce_axis((0, GROUP_SIZE), name="k")

    def value(i: tirx.Expr, at: tirx.Expr) -> tirx.Expr:
        if width % GROUP_SIZE == 0:
            return x[i, at]
        return tirx.if_then_else(at < width, x[i, at], tirx.const(0, "float32"))

    extreme = te.compute(
        (m, groups),
        lambda i, g: te.max(tirx.abs(value(i, g * GROUP_SIZE + k)), axis=k),
        name="extreme",
    )

    def level(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        inverse = inverse_scale(extreme[i, j // GROUP_SIZE])
        return tirx.nearbyint(value(i, j) * inverse).astype("int8")

    integers = te.compute((m, groups * GROUP_SIZE), level, name="integers")
    scales = te.compute(
        (m, groups), lambda i, g: extreme[i, g] / float(LARGEST_INT8), name="scales"
    )
    k2 = te.reduce_axis((0, GROUP_SIZE), name="k")
    offsets = te.compute(
        (m, groups),
        lambda i, g: te.sum(
            integers[i, g * GROUP_SIZE + k2].astype("int32") * tirx.const(-zero, "int32"), axis=k2
        ),
        name="offsets",
    )
    return define("quantize_rows", [x, integers, scales, offsets], zero=zero)
