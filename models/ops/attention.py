"""Bidirectional attention of the vision tower: no mask, no positions, no cache."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import call, define, placeholders
from mvlm.models.ops.signatures import AttentionSignature


def attention(qkv: nn.Tensor, heads: int) -> nn.Tensor:
    """Let every position attend to every other.

    ``softmax(q k^T / sqrt(head_dim)) v`` for each head (Vaswani et al. 2017, section 3.2).

    Args:
        qkv: ``(1, S, 3 * heads * head_dim)`` float32: queries, keys and values concatenated.
        heads: How many heads.

    Returns:
        ``(1, S, heads * head_dim)`` float32.
    """
    _, length, width = qkv.shape
    op = AttentionSignature(length, heads, width // 3 // heads)
    flat = nn.op.reshape(qkv, (length, width))
    (out,) = call(attention_definition(op), op, "attention", {"qkv": flat})
    return nn.op.reshape(out, (1, length, op.hidden))


def attention_definition(op: AttentionSignature) -> tirx.PrimFunc:
    """Return the definition."""
    length, heads, head_dim, hidden = op.length, op.heads, op.head_dim, op.hidden
    inputs = placeholders(op)
    qkv = inputs["qkv"]
    d = te.reduce_axis((0, head_dim), name="d")
    scores = te.compute(
        (heads, length, length),
        lambda h, i, j: te.sum(
            qkv[i, h * head_dim + d]
            * qkv[j, hidden + h * head_dim + d]
            * tirx.const(head_dim**-0.5, "float32"),
            axis=d,
        ),
        name="scores",
    )
    a = te.reduce_axis((0, length), name="a")
    row_max = te.compute(
        (heads, length), lambda h, i: te.max(scores[h, i, a], axis=a), name="row_max"
    )
    weights = te.compute(
        (heads, length, length),
        lambda h, i, j: te.exp(scores[h, i, j] - row_max[h, i]),
        name="weights",
    )
    b = te.reduce_axis((0, length), name="b")
    row_sum = te.compute(
        (heads, length), lambda h, i: te.sum(weights[h, i, b], axis=b), name="row_sum"
    )
    j = te.reduce_axis((0, length), name="j")
    o_acc = te.compute(
        (length, hidden),
        lambda i, c: te.sum(weights[c // head_dim, i, j] * qkv[j, 2 * hidden + c], axis=j),
        name="o_acc",
    )
    out = te.compute(
        (length, hidden), lambda i, c: o_acc[i, c] / row_sum[c // head_dim, i], name="out"
    )
    return define(op, inputs, out)
