"""Linear layers: ``y = x W`` over float or 4-bit weights."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.quantization import GROUP_SIZE, NIBBLES_PER_WORD


def linear(x: nn.Tensor, weight: tuple[nn.Tensor, ...]) -> nn.Tensor:
    """Multiply every position with a matrix.

    Args:
        x: ``(..., K)`` float32.
        weight: Either one ``(K, N)`` float tensor, or words ``(ceil(K/8), N)`` uint32 and scales
            ``(ceil(K/32), N)`` float16 (see `quantization`).

    Returns:
        ``(..., N)`` float32.
    """
    *leading, width = x.shape
    rows = 1
    for extent in leading:
        rows = rows * extent
    features = weight[0].shape[1]
    if len(weight) == 1:
        function = _float_linear(rows, width, features, weight[0].dtype)
    else:
        function = _q4_linear(rows, width, features)
    flat = nn.op.reshape(x, (rows, width))
    out = nn.Tensor.placeholder((rows, features), "float32")
    y = nn.op.tensor_ir_op(function, "linear", [flat, *weight], out)
    return nn.op.reshape(y, (*leading, features))


def _float_linear(rows: object, width: int, features: int, dtype: str) -> tirx.PrimFunc:
    m = row_count(rows)
    x = te.placeholder((m, width), "float32", name="x")
    weight = te.placeholder((width, features), dtype, name="weight")
    k = te.reduce_axis((0, width), name="k")
    y = te.compute(
        (m, features),
        lambda i, j: te.sum(x[i, k] * weight[k, j].astype("float32"), axis=k),
        name="y",
    )
    return define("linear", [x, weight, y], storage=dtype)


def _q4_linear(rows: object, width: int, features: int) -> tirx.PrimFunc:
    m = row_count(rows)
    x = te.placeholder((m, width), "float32", name="x")
    words = te.placeholder((-(-width // NIBBLES_PER_WORD), features), "uint32", name="words")
    scales = te.placeholder((-(-width // GROUP_SIZE), features), "float16", name="scales")

    def value(k: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        shift = (k % NIBBLES_PER_WORD * 4).astype("uint32")
        nibble = (words[k // NIBBLES_PER_WORD, j] >> shift) & tirx.const(15, "uint32")
        return (nibble.astype("float32") - 7.0) * scales[k // GROUP_SIZE, j].astype("float32")

    k = te.reduce_axis((0, width), name="k")
    y = te.compute((m, features), lambda i, j: te.sum(x[i, k] * value(k, j), axis=k), name="y")
    return define("linear", [x, words, scales, y], storage="q4")
