"""Row-wise functions: the prologues of linear layers, and their quantization.

Between two linear layers lies a normalization or an activation, and where the second one multiplies
integers, a quantization. Both are one operation: the row is read once, and nothing is stored in
between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.ops.integers import QMAX, inverse_scale
from mvlm.models.quantization import GROUP_SIZE, fit_groups_per_scale


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
    inputs, y = _definition(flat, prologue)
    width = int(y.shape[1])
    reference = define("rowwise", [*inputs, y], **_attributes(prologue))
    out = nn.Tensor.placeholder((flat.shape[0], width), "float32")
    arguments = [flat, *prologue.weights]
    found = nn.op.tensor_ir_op(reference, prologue.name, arguments, out)
    return nn.op.reshape(found, (*leading, width))


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
        ``(rows, groups / sharing)`` float32; and with a zero point ``(rows, groups)`` int32, the
        zero-point correction: the sums of the integers times ``-zero_point``.
    """
    inputs, value = _definition(x, prologue)
    rows, groups = x.shape[0], -(-int(value.shape[1]) // GROUP_SIZE)
    groups_per_scale = fit_groups_per_scale(groups, groups_per_scale)
    outs = [
        nn.Tensor.placeholder((rows, groups * GROUP_SIZE), dtype),
        nn.Tensor.placeholder((rows, groups // groups_per_scale), "float32"),
    ]
    if zero_point:
        outs.append(nn.Tensor.placeholder((rows, groups), "int32"))
    reference = define(
        "quantize_rows",
        [*inputs, *_quantized(value, dtype, zero_point, groups_per_scale)],
        zero_point=zero_point,
        **_attributes(prologue),
    )
    name = "quantize" if prologue.name == IDENTITY.name else f"quantize_{prologue.name}"
    return tuple(nn.op.tensor_ir_op(reference, name, [x, *prologue.weights], outs))


def as_rows(x: nn.Tensor) -> nn.Tensor:
    """View ``(..., K)`` as ``(rows, K)``."""
    *leading, width = x.shape
    rows = 1
    for extent in leading:
        rows = rows * extent
    return nn.op.reshape(x, (rows, width))


def _attributes(prologue: Prologue) -> dict[str, int | str | float]:
    return {"prologue": prologue.name, "eps": prologue.eps}


def _definition(x: nn.Tensor, prologue: Prologue) -> tuple[list[te.Tensor], te.Tensor]:
    """Return the inputs, and the function's values."""
    m, width = row_count(x.shape[0]), int(x.shape[1])
    rows = te.placeholder((m, width), "float32", name="x")
    weights = [te.placeholder((width,), "float32", name="weight") for _ in prologue.weights]
    return [rows, *weights], PROLOGUES[prologue.name](rows, weights, prologue.eps)


def _quantized(x: te.Tensor, dtype: str, zero_point: int, groups_per_scale: int) -> list[te.Tensor]:
    m, width = x.shape
    width, qmax = int(width), QMAX[dtype]
    groups, scale_width = -(-width // GROUP_SIZE), groups_per_scale * GROUP_SIZE
    scale_count = groups // groups_per_scale
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
        return tirx.nearbyint(value(i, j) * inverse).astype(dtype)

    integers = te.compute((m, groups * GROUP_SIZE), quantized, name="integers")
    scales = te.compute((m, scale_count), lambda i, s: absmax[i, s] / float(qmax), name="scales")
    if not zero_point:
        return [integers, scales]
    k2 = te.reduce_axis((0, GROUP_SIZE), name="k")
    zero_point_correction = te.compute(
        (m, groups),
        lambda i, g: te.sum(
            integers[i, g * GROUP_SIZE + k2].astype("int32") * tirx.const(-zero_point, "int32"),
            axis=k2,
        ),
        name="zero_point_correction",
    )
    return [integers, scales, zero_point_correction]


def _identity(x: te.Tensor, weights: list[te.Tensor], eps: float) -> te.Tensor:
    del weights, eps
    return x


def _rms_norm(x: te.Tensor, weights: list[te.Tensor], eps: float) -> te.Tensor:
    m, width = x.shape
    k = te.reduce_axis((0, width), name="k")
    squares = te.compute((m,), lambda i: te.sum(x[i, k] * x[i, k], axis=k), name="squares")
    return te.compute(
        x.shape,
        lambda i, j: x[i, j] * tirx.rsqrt(squares[i] / _count(width) + eps) * weights[0][j],
        name="normalized",
    )


def _layer_norm(x: te.Tensor, weights: list[te.Tensor], eps: float) -> te.Tensor:
    """The variance of what is left without the mean.

    Subtracting the mean's square from the mean of squares cancels where the mean is large: 1.6e-5
    off at a mean of 30.
    """
    m, width = x.shape
    along = [te.reduce_axis((0, width), name="along") for _ in range(2)]
    total = te.compute((m,), lambda i: te.sum(x[i, along[0]], axis=along[0]), name="total")
    centred = te.compute(x.shape, lambda i, j: x[i, j] - total[i] / _count(width), name="centred")
    squares = te.compute(
        (m,),
        lambda i: te.sum(centred[i, along[1]] * centred[i, along[1]], axis=along[1]),
        name="squares",
    )

    def value(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        return centred[i, j] * tirx.rsqrt(squares[i] / _count(width) + eps)

    return te.compute(
        x.shape, lambda i, j: value(i, j) * weights[0][j] + weights[1][j], name="normalized"
    )


def _count(width: tirx.Expr) -> float:
    return float(int(width))


def _silu_product(x: te.Tensor, weights: list[te.Tensor], eps: float) -> te.Tensor:
    """SwiGLU's: the gates lie in the first half of a row, what they let through in the second."""
    del weights, eps
    m, both = x.shape
    width = int(both) // 2
    return te.compute(
        (m, width), lambda i, j: x[i, j] * tirx.sigmoid(x[i, j]) * x[i, width + j], name="gated"
    )


def _elementwise(of: Callable[[tirx.Expr], tirx.Expr]) -> Callable[..., te.Tensor]:
    def whole(x: te.Tensor, weights: list[te.Tensor], eps: float) -> te.Tensor:
        del weights, eps
        return te.compute(x.shape, lambda i, j: of(x[i, j]), name="activated")

    return whole


def _gelu(x: tirx.Expr) -> tirx.Expr:
    """The exact one, x * Phi(x): the approximation by tanh is off by 1e-3 in the logits."""
    return x * 0.5 * (1.0 + tirx.erf(x * 0.5**0.5))


PROLOGUES: dict[str, Callable[..., te.Tensor]] = {
    "identity": _identity,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "silu_product": _silu_product,
    "quick_gelu": _elementwise(lambda x: x * tirx.sigmoid(x * 1.702)),
    "gelu": _elementwise(_gelu),
}
