"""Embedding lookup over float or 4-bit tables."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.quantization import GROUP_SIZE, NIBBLES_PER_WORD


def embedding(ids: nn.Tensor, table: tuple[nn.Tensor, ...], width: int) -> nn.Tensor:
    """Look the rows of `ids` up.

    Args:
        ids: ``(1, n)`` int32, each below the table's rows: the caller checks that.
        table: Either one ``(V, width)`` float tensor, or words ``(V, ceil(width/8))`` uint32 and
            scales ``(V, ceil(width/32))`` float16.
        width: The embedding's width.

    Returns:
        ``(1, n, width)`` float32.
    """
    _, count = ids.shape
    function = _lookup(count, table[0].shape[0], width, table[0].dtype)
    flat = nn.op.reshape(ids, (count,))
    out = nn.Tensor.placeholder((count, width), "float32")
    rows = nn.op.tensor_ir_op(function, "embedding", [flat, *table], out)
    return nn.op.reshape(rows, (1, count, width))


def _lookup(count: object, vocabulary: int, width: int, dtype: str) -> tirx.PrimFunc:
    n = row_count(count)
    ids = te.placeholder((n,), "int32", name="ids")
    if dtype != "uint32":
        table = te.placeholder((vocabulary, width), dtype, name="table")
        rows = te.compute((n, width), lambda i, j: table[ids[i], j].astype("float32"), name="rows")
        return define("embedding", [ids, table, rows], storage=dtype)

    words = te.placeholder((vocabulary, -(-width // NIBBLES_PER_WORD)), "uint32", name="words")
    scales = te.placeholder((vocabulary, -(-width // GROUP_SIZE)), "float16", name="scales")

    def value(i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        shift = (j % NIBBLES_PER_WORD * 4).astype("uint32")
        nibble = (words[ids[i], j // NIBBLES_PER_WORD] >> shift) & tirx.const(15, "uint32")
        return (nibble.astype("float32") - 7.0) * scales[ids[i], j // GROUP_SIZE].astype("float32")

    return define(
        "embedding",
        [ids, words, scales, te.compute((n, width), value, name="rows")],
        storage="q4",
    )
