"""The KV cache within a graph: an argument of the functions, whose pages they write in place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.cache_layout import CacheLayout

# The extents that only a running session knows: pages of the pool, and of a sequence.
PAGES, NUM_BLOCKS = "pages", "num_blocks"


@dataclass(frozen=True)
class Cache:
    """The cache within a graph: one sequence's place in it, and the pages of all layers.

    Attributes:
        layout: Its layout.
        start: ``(1,)`` int32: positions that the sequence has already.
        page_table: ``(span,)`` int32: the sequence's pages.
        layers: The tensors of each layer's pages.
    """

    layout: CacheLayout
    start: nn.Tensor
    page_table: nn.Tensor
    layers: tuple[tuple[nn.Tensor, ...], ...]

    def at_last(self, positions: nn.Tensor) -> Cache:
        """Return the cache as the last of the new positions sees it, all before it there.

        Args:
            positions: What has so many rows as there are new positions.
        """

        def place(start: te.Tensor, rows: te.Tensor) -> te.Tensor:
            before = tirx.Cast("int32", rows.shape[0] - 1)
            return te.compute((1,), lambda i: start[i] + before, name="start")

        start = nn.op.tensor_expr_op(place, "last_start", [self.start, positions])
        return replace(self, start=start)


def cache_spec(layout: CacheLayout) -> list[nn.spec.Tensor]:
    """Return the specification of the one argument that a function takes the cache by."""
    elements = [nn.spec.Tensor((1,), "int32"), nn.spec.Tensor((NUM_BLOCKS,), "int32")]
    for _ in range(layout.layers):
        elements += [nn.spec.Tensor((PAGES, *t.shape), t.dtype) for t in layout.tensors]
    return elements


def read_cache(layout: CacheLayout, argument: list[nn.Tensor]) -> Cache:
    """Return the cache that a function was given as its argument."""
    start, page_table, *rest = argument
    each = len(layout.tensors)
    layers = tuple(tuple(rest[at : at + each]) for at in range(0, len(rest), each))
    return Cache(layout, start, page_table, layers)
