"""Row-wise functions: the prologues of linear layers, and their quantization.

Between two linear layers lies a normalization or an activation, and where the second one multiplies
integers, a quantization. Both are one operation: the row is read once, and nothing is stored in
between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.activations import QUICK_GELU_SLOPE
from mvlm.models.ops.definition import call, define, known_rows, placeholders
from mvlm.models.ops.signatures import QuantizeRowsSignature, RowFunction, RowwiseSignature
from mvlm.models.quantization import (
    GROUP_SIZE,
    MIN_ABSMAX,
    OFFSET_STEP,
    QMAX,
    byte_zero_point,
    fit_groups_per_scale,
)


@dataclass(frozen=True)
class Prologue:
    """A function of one row.

    Attributes:
        name: One of `PROLOGUES`.
        weights: Its parameters, each ``(K,)`` float32.
        eps: Added to the variance by a normalization.
    """

    name: str
    weights: tuple[nn.Tensor, ...] = ()
    eps: float = 0.0


IDENTITY = Prologue("identity")
GELU = Prologue("gelu")
SILU_PRODUCT = Prologue("silu_product")


def rowwise(x: nn.Tensor, prologue: Prologue) -> nn.Tensor:
    """Apply a function to every row of ``(..., K)`` float32; ``(..., K/2)`` by SILU_PRODUCT."""
    *leading, _ = x.shape
    flat = as_rows(x)
    rows, width = known_rows(flat.shape[0]), flat.shape[1]
    op = RowwiseSignature(rows, width, prologue.name, prologue.eps)
    arguments = {"x": flat, **dict(zip(op.weights, prologue.weights, strict=True))}
    (y,) = call(rowwise_definition(op), op, prologue.name, arguments)
    return nn.op.reshape(y, (*leading, op.values))


def rowwise_definition(op: RowwiseSignature) -> tirx.PrimFunc:
    """Return the definition of a row-wise function alone."""
    inputs = placeholders(op)
    y = _values(op, inputs, "y")
    if op.prologue == IDENTITY.name:  # an output has to be computed: a copy
        y = te.compute(y.shape, lambda i, j: inputs["x"][i, j], name="y")
    return define(op, inputs, y)


def quantize_rows(
    x: nn.Tensor,
    prologue: Prologue,
    dtype: str = "int8",
    zero_point: int = 0,
    groups_per_scale: int = 1,
) -> tuple[nn.Tensor, ...]:
    """Apply a function to every row, and quantize it in groups (see `models.quantization`).

    Args:
        x: ``(rows, K)`` float32, or ``(rows, 2 * K)`` for SILU_PRODUCT.
        prologue: The function.
        dtype: Of the integers: int8 or int16.
        zero_point: Of the weights that the result will be multiplied with.
        groups_per_scale: How many groups of 32 share a scale, at most.

    Returns:
        Integers ``(rows, groups * 32)``, the last group filled with zeros; scales
        ``(rows, groups / sharing)`` float32; and with a zero point its correction (see
        `QuantizeRowsSignature`).
    """
    rows, width = known_rows(x.shape[0]), x.shape[1]
    op = QuantizeRowsSignature(rows, width, prologue.name, prologue.eps, dtype, zero_point, 1)
    sharing = fit_groups_per_scale(op.groups, groups_per_scale)
    op = replace(op, activation_scales=op.groups // sharing)
    name = "quantize" if prologue.name == IDENTITY.name else f"quantize_{prologue.name}"
    arguments = {"x": x, **dict(zip(op.weights, prologue.weights, strict=True))}
    return tuple(call(quantize_rows_definition(op), op, name, arguments))


def quantize_rows_definition(op: QuantizeRowsSignature) -> tirx.PrimFunc:
    """Return the definition of a row-wise function and the quantization of its values."""
    inputs = placeholders(op)
    return define(op, inputs, *_quantized(op, _values(op, inputs, "values")))


def as_rows(x: nn.Tensor) -> nn.Tensor:
    """View ``(..., K)`` as ``(rows, K)``."""
    *leading, width = x.shape
    rows = 1
    for extent in leading:
        rows = rows * extent
    return nn.op.reshape(x, (rows, width))


def inverse_scale(absmax: tirx.Expr, qmax: int) -> tirx.Expr:
    """Return the inverse scale of a float32 vector whose largest magnitude is `absmax`.

    Args:
        absmax: The largest magnitude.
        qmax: The largest integer (see :data:`mvlm.models.quantization.QMAX`).
    """
    return tirx.if_then_else(absmax < MIN_ABSMAX, tirx.const(0, "float32"), float(qmax) / absmax)


def _values(op: RowFunction, inputs: Mapping[str, te.Tensor], name: str) -> te.Tensor:
    """Return the function's values."""
    return PROLOGUES[op.prologue](op, inputs, name)


def _quantized(op: QuantizeRowsSignature, x: te.Tensor) -> list[te.Tensor]:
    m, width, groups, scale_count = x.shape[0], op.values, op.groups, op.activation_scales
    scale_width, qmax = op.groups_per_scale * GROUP_SIZE, QMAX[op.dtype]
    k = te.reduce_axis((0, scale_width), name="k")

    def value(i: tirx.Expr, at: tirx.Expr) -> tirx.Expr:
        if width % GROUP_SIZE == 0:
            return x[i, at]
        return tirx.if_then_else(at < width, x[i, at], tirx.const(0, "float32"))

    absmax = te.compute(
        (m, scale_count),
        lambda i, s: te.max(tirx.abs(value(i, s * scale_width + k)), axis=k),
        name="absmax",
    )

    def quantized(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        inverse = inverse_scale(absmax[i, j // scale_width], qmax)
        return tirx.nearbyint(value(i, j) * inverse).astype(op.dtype)

    integers = te.compute((m, groups * GROUP_SIZE), quantized, name="integers")
    scales = te.compute((m, scale_count), lambda i, s: absmax[i, s] / float(qmax), name="scales")
    if not op.has_zero_point:
        return [integers, scales]
    return [integers, scales, *_zero_point_correction(op, integers)]


def _zero_point_correction(op: QuantizeRowsSignature, integers: te.Tensor) -> list[te.Tensor]:
    """Return what accounts for the weights' zero point, by :class:`QuantizeRowsSignature`."""
    m, groups = integers.shape[0], op.groups

    def product(i: tirx.Expr, k: tirx.Expr, zero_point: int) -> tirx.Expr:
        return integers[i, k].astype("int32") * tirx.const(-zero_point, "int32")

    k = te.reduce_axis((0, GROUP_SIZE), name="k")
    byte_zero = byte_zero_point(op.zero_point)
    correction = te.compute(
        (m, groups),
        lambda i, g: te.sum(product(i, g * GROUP_SIZE + k, byte_zero), axis=k),
        name="zero_point_correction",
    )
    if not op.has_levels:
        return [correction]
    four = te.reduce_axis((0, GROUP_SIZE // 4), name="four")
    two = te.reduce_axis((0, 2), name="two")
    sums = te.compute(
        (m, groups, 2),
        lambda i, g, half: te.sum(
            product(i, g * GROUP_SIZE + four * 4 + half * 2 + two, op.zero_point), axis=[four, two]
        ),
        name="half_sums",
    )
    halves = te.compute(sums.shape, lambda *at: sums[at].astype("int16"), name="zero_point_halves")
    factor = OFFSET_STEP / -byte_zero  # exact: a power of two and a few bits
    offset_sums = te.compute(
        (m, groups), lambda *at: correction[at].astype("float32") * factor, name="offset_sums"
    )
    return [correction, halves, offset_sums]


def _identity(op: RowFunction, inputs: Mapping[str, te.Tensor], name: str) -> te.Tensor:
    return inputs["x"]


def _rms_norm(op: RowFunction, inputs: Mapping[str, te.Tensor], name: str) -> te.Tensor:
    x, weight = inputs["x"], inputs["weight"]
    k = te.reduce_axis((0, op.width), name="k")
    squares = te.compute((x.shape[0],), lambda i: te.sum(x[i, k] * x[i, k], axis=k), name="squares")
    return te.compute(
        x.shape,
        lambda i, j: x[i, j] * tirx.rsqrt(squares[i] / float(op.width) + op.eps) * weight[j],
        name=name,
    )


def _layer_norm(op: RowFunction, inputs: Mapping[str, te.Tensor], name: str) -> te.Tensor:
    """The variance of what is left without the mean.

    Subtracting the mean's square from the mean of squares cancels where the mean is large: 1.6e-5
    off at a mean of 30.
    """
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    m, width = x.shape[0], float(op.width)
    along = [te.reduce_axis((0, op.width), name="along") for _ in range(2)]
    total = te.compute((m,), lambda i: te.sum(x[i, along[0]], axis=along[0]), name="total")
    centred = te.compute(x.shape, lambda i, j: x[i, j] - total[i] / width, name="centred")
    squares = te.compute(
        (m,),
        lambda i: te.sum(centred[i, along[1]] * centred[i, along[1]], axis=along[1]),
        name="squares",
    )

    def value(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        return centred[i, j] * tirx.rsqrt(squares[i] / width + op.eps)

    return te.compute(x.shape, lambda i, j: value(i, j) * weight[j] + bias[j], name=name)


def _silu_product(op: RowFunction, inputs: Mapping[str, te.Tensor], name: str) -> te.Tensor:
    """SwiGLU's: the gates lie in the first half of a row, what they let through in the second."""
    x, width = inputs["x"], op.values
    return te.compute(
        (x.shape[0], width),
        lambda i, j: x[i, j] * tirx.sigmoid(x[i, j]) * x[i, width + j],
        name=name,
    )


def _elementwise(of: Callable[[tirx.Expr], tirx.Expr]) -> Callable[..., te.Tensor]:
    def whole(op: RowFunction, inputs: Mapping[str, te.Tensor], name: str) -> te.Tensor:
        x = inputs["x"]
        return te.compute(x.shape, lambda i, j: of(x[i, j]), name=name)

    return whole


def _gelu(x: tirx.Expr) -> tirx.Expr:
    """The exact one, x * Phi(x): the approximation by tanh is off by 1e-3 in the logits."""
    return x * 0.5 * (1.0 + tirx.erf(x * 0.5**0.5))


PROLOGUES: dict[str, Callable[..., te.Tensor]] = {
    "identity": _identity,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "silu_product": _silu_product,
    "quick_gelu": _elementwise(lambda x: x * tirx.sigmoid(x * QUICK_GELU_SLOPE)),
    "gelu": _elementwise(_gelu),
}
