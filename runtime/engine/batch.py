"""One step of the model: rows of several sequences, computed by one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from mvlm.runtime.artifact.layout import MOST_FEW_ROWS
from mvlm.runtime.engine.positions import Positions
from mvlm.runtime.engine.sequence import PagedSequence
from mvlm.runtime.kv_cache import KVCache, Run
from mvlm.runtime.model import FloatArray, Model


@dataclass(frozen=True)
class Rows:
    """Rows of one sequence in a step: its next positions, and drafted tokens behind them.

    Attributes:
        positions: Of the sequence.
        sequence: Its pages; they have room for the rows.
        begin: The first row's position.
        count: How many of its positions are computed.
        drafts: Tokens that are verified behind the last of them.
        wants_all: Whether the logits of all rows are wanted.
    """

    positions: Positions
    sequence: PagedSequence
    begin: int
    count: int
    drafts: tuple[int, ...] = ()
    wants_all: bool = False

    @property
    def end(self) -> int:
        """The position behind the last one that is no draft."""
        return self.begin + self.count

    @property
    def total(self) -> int:
        """Rows, drafts included."""
        return self.count + len(self.drafts)

    @property
    def wanted(self) -> range:
        """The rows whose logits are wanted: the last one of all positions, and drafts."""
        if self.wants_all:
            return range(self.total)
        return range(self.count - 1 if self.end == len(self.positions) else self.total, self.total)


def compute(model: Model, cache: KVCache, batch: Sequence[Rows]) -> list[FloatArray]:
    """Compute the rows of a step.

    Returns:
        For each sequence the logits ``(k, vocabulary)`` float32 of its wanted rows.
    """
    total = sum(rows.total for rows in batch)
    ids = _few_tokens(batch)
    if ids is None and total > model.settings.prefill_chunk and len(batch) > 1:
        # A model of small chunks: they hold fewer rows than there may be sequences.
        half = len(batch) // 2
        return [*compute(model, cache, batch[:half]), *compute(model, cache, batch[half:])]
    runs = [Run(rows.begin, rows.total, rows.sequence.pages) for rows in batch]
    firsts = [0, *accumulate(rows.total for rows in batch)]
    wanted = [
        [first + row for row in rows.wanted] for first, rows in zip(firsts, batch, strict=False)
    ]
    flat = [row for each in wanted for row in each]
    if ids is not None:
        logits = model.decode(ids, cache, runs)[flat]
    else:
        parts = [part for rows in batch for part in _embeddings(model, rows)]
        embeddings = model.device.concatenate(parts)
        if any(rows.wants_all for rows in batch):
            logits = model.prefill(embeddings, cache, runs)[flat]
        else:
            # The functions compute one row at the least.
            logits = model.prefill(embeddings, cache, runs, flat or [0])
    ends = [0, *accumulate(map(len, wanted))]
    return [logits[begin:end] for begin, end in pairwise(ends)]


def _few_tokens(batch: Sequence[Rows]) -> list[int] | None:
    """Return the tokens of all rows, if they are few and none is an image's."""
    if sum(rows.total for rows in batch) > MOST_FEW_ROWS:
        return None
    ids: list[int] = []
    for rows in batch:
        tokens = rows.positions.tokens(rows.begin, rows.end)
        if tokens is None:
            return None
        ids += [*tokens, *rows.drafts]
    return ids


def _embeddings(model: Model, rows: Rows) -> list[FloatArray]:
    parts = rows.positions.embeddings(model, rows.begin, rows.end)
    return [*parts, model.embed(rows.drafts)] if rows.drafts else parts
