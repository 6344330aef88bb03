"""Linear layers, ``y = x W``, over float or integer weights, with float or 8-bit activations."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.ops.int8 import LARGEST_INT8, inverse_scale
from mvlm.models.ops.stored import attributes, stored_placeholders, stored_value
from mvlm.models.quantization import GROUP_SIZE, Scheme, Storage


def linear(x: nn.Tensor, weight: tuple[nn.Tensor, ...], scheme: Scheme) -> nn.Tensor:
    """Multiply every position with a matrix.

    Args:
        x: ``(..., K)`` float32.
        weight: One float tensor, or integers and scales, as the scheme stores them.
        scheme: What the weights are, and whether `x` is quantized to 8 bits before.

    Returns:
        ``(..., N)`` float32.
    """
    *leading, width = x.shape
    rows = 1
    for extent in leading:
        rows = rows * extent
    features = weight[0].shape[1]
    flat = nn.op.reshape(x, (rows, width))
    inputs = [flat]
    if scheme.activations == "int8":
        inputs = list(quantize_rows(flat))
        function = _int8_linear(rows, width, features, scheme.weights)
    else:
        function = _float_linear(rows, width, features, scheme.weights)
    out = nn.Tensor.placeholder((rows, features), "float32")
    y = nn.op.tensor_ir_op(function, "linear", [*inputs, *weight], out)
    return nn.op.reshape(y, (*leading, features))


def quantize_rows(x: nn.Tensor) -> tuple[nn.Tensor, nn.Tensor]:
    """Quantize each group of 32 of every row to 8 bits (see `quantization`).

    Args:
        x: ``(rows, K)`` float32.

    Returns:
        Integers ``(rows, K)`` int8 and scales ``(rows, ceil(K / 32))`` float32.
    """
    rows, width = x.shape
    outs = [
        nn.Tensor.placeholder((rows, width), "int8"),
        nn.Tensor.placeholder((rows, -(-width // GROUP_SIZE)), "float32"),
    ]
    integers, scales = nn.op.tensor_ir_op(_quantize(rows, width), "quantize_rows", [x], outs)
    return integers, scales


def _float_linear(rows: object, width: int, features: int, storage: Storage) -> tirx.PrimFunc:
    m = row_count(rows)
    x = te.placeholder((m, width), "float32", name="x")
    weight = stored_placeholders(storage, (width, features), axis=0)
    k = te.reduce_axis((0, width), name="k")
    y = te.compute(
        (m, features),
        lambda i, j: te.sum(x[i, k] * stored_value(storage, weight, (k, j), axis=0), axis=k),
        name="y",
    )
    return define("linear", [x, *weight, y], activations="float32", **attributes(storage))


def _int8_linear(rows: object, width: int, features: int, storage: Storage) -> tirx.PrimFunc:
    m = row_count(rows)
    x = te.placeholder((m, width), "int8", name="x")
    x_scale = te.placeholder((m, -(-width // GROUP_SIZE)), "float32", name="x_scale")
    weight = stored_placeholders(storage, (width, features), axis=0)
    k = te.reduce_axis((0, width), name="k")

    def product(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        left = x[i, k].astype("float32") * x_scale[i, k // GROUP_SIZE]
        return left * stored_value(storage, weight, (k, j), axis=0)

    y = te.compute((m, features), lambda i, j: te.sum(product(i, j), axis=k), name="y")
    return define("linear", [x, x_scale, *weight, y], activations="int8", **attributes(storage))


def _quantize(rows: object, width: int) -> tirx.PrimFunc:
    m = row_count(rows)
    groups = -(-width // GROUP_SIZE)
    x = te.placeholder((m, width), "float32", name="x")
    k = te.reduce_axis((0, GROUP_SIZE), name="k")

    def magnitude(i: tirx.Expr, g: tirx.Expr) -> tirx.Expr:
        at = g * GROUP_SIZE + k
        if width % GROUP_SIZE == 0:
            return tirx.abs(x[i, at])
        return tirx.if_then_else(at < width, tirx.abs(x[i, at]), tirx.const(0, "float32"))

    extreme = te.compute((m, groups), lambda i, g: te.max(magnitude(i, g), axis=k), name="extreme")

    def level(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        inverse = inverse_scale(extreme[i, j // GROUP_SIZE])
        return tirx.nearbyint(x[i, j] * inverse).astype("int8")

    integers = te.compute((m, width), level, name="integers")
    scales = te.compute(
        (m, groups), lambda i, g: extreme[i, g] / float(LARGEST_INT8), name="scales"
    )
    return define("quantize_rows", [x, integers, scales])
