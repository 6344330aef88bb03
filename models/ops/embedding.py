"""Embedding lookup over float or integer tables."""

from __future__ import annotations

from dataclasses import replace

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.definition import call, define, known_rows, placeholders, stored_value
from mvlm.models.ops.signatures import EmbeddingSignature


def embedding(ids: nn.Tensor, table: tuple[nn.Tensor, ...], op: EmbeddingSignature) -> nn.Tensor:
    """Look the rows of `ids` up.

    Args:
        ids: ``(1, n)`` int32, each below the table's rows: the caller checks that.
        table: Its arrays in its layout.
        op: The lookup, for any number of ids.

    Returns:
        ``(1, n, width)`` float32.
    """
    _, count = ids.shape
    op = replace(op, count=known_rows(count))
    stored = zip(op.weight_parameters, table, strict=True)
    arguments = {"ids": nn.op.reshape(ids, (count,)), **{each.name: t for each, t in stored}}
    (rows,) = call(embedding_definition(op), op, "embedding", arguments)
    return nn.op.reshape(rows, (1, count, op.width))


def embedding_definition(op: EmbeddingSignature) -> tirx.PrimFunc:
    """Return the definition."""
    inputs = placeholders(op)
    ids = inputs["ids"]
    rows = te.compute(
        (ids.shape[0], op.width),
        lambda i, j: stored_value(op.weight_layout, op.matrix, inputs, ids[i], j),
        name="rows",
    )
    return define(op, inputs, rows)
