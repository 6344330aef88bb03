"""Embedding lookup over float or integer tables."""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import call, define, known_rows, placeholders, stored_value
from mvlm.models.ops.signatures import EmbeddingSignature
from mvlm.models.quantization import WeightFormat
from mvlm.models.weight_layout import ROWS


def embedding(
    ids: nn.Tensor, table: tuple[nn.Tensor, ...], width: int, weight_format: WeightFormat
) -> nn.Tensor:
    """Look the rows of `ids` up.

    Args:
        ids: ``(1, n)`` int32, each below the table's rows: the caller checks that.
        table: Its arrays in the layout `ROWS`.
        width: The embedding's width.
        weight_format: How the table is stored.

    Returns:
        ``(1, n, width)`` float32.
    """
    _, count = ids.shape
    op = EmbeddingSignature(known_rows(count), table[0].shape[0], width, weight_format.name)
    stored = zip(op.weight_parameters, table, strict=True)
    arguments = {"ids": nn.op.reshape(ids, (count,)), **{each.name: t for each, t in stored}}
    (rows,) = call(embedding_definition(op), op, "embedding", arguments)
    return nn.op.reshape(rows, (1, count, width))


def embedding_definition(op: EmbeddingSignature) -> tirx.PrimFunc:
    """Return the definition."""
    inputs = placeholders(op)
    ids = inputs["ids"]
    rows = te.compute(
        (ids.shape[0], op.width),
        lambda i, j: stored_value(ROWS, op.matrix, inputs, ids[i], j),
        name="rows",
    )
    return define(op, inputs, rows)
