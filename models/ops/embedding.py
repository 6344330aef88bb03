"""Embedding lookup over float or integer tables."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import define, row_count
from mvlm.models.ops.stored import attributes, stored_placeholders, stored_value
from mvlm.models.quantization import WeightFormat


def embedding(
    ids: nn.Tensor, table: tuple[nn.Tensor, ...], width: int, weight_format: WeightFormat
) -> nn.Tensor:
    """Look the rows of `ids` up.

    Args:
        ids: ``(1, n)`` int32, each below the table's rows: the caller checks that.
        table: One ``(V, width)`` float tensor, or integers and scales grouped along the rows.
        width: The embedding's width.
        weight_format: How the table is stored.

    Returns:
        ``(1, n, width)`` float32.
    """
    _, count = ids.shape
    function = _lookup(count, table[0].shape[0], width, weight_format)
    flat = nn.op.reshape(ids, (count,))
    out = nn.Tensor.placeholder((count, width), "float32")
    rows = nn.op.tensor_ir_op(function, "embedding", [flat, *table], out)
    return nn.op.reshape(rows, (1, count, width))


def _lookup(
    count: object, vocabulary: int, width: int, weight_format: WeightFormat
) -> tirx.PrimFunc:
    n = row_count(count)
    ids = te.placeholder((n,), "int32", name="ids")
    table = stored_placeholders(weight_format, (vocabulary, width), axis=1)
    rows = te.compute(
        (n, width),
        lambda i, j: stored_value(weight_format, table, (ids[i], j), axis=1),
        name="rows",
    )
    return define("embedding", [ids, *table, rows], **attributes(weight_format))
