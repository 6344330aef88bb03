"""The KV cache within a graph: an argument of the functions, whose pages they write in place.

A call's rows may belong to several sequences. Each row has a position in its sequence, and a place
in the list of pages where those of its sequence begin. Neighbouring rows at consecutive positions
of one sequence form a run: a chunk of a prompt, or a single token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.cache_layout import CacheLayout

# The extents that only a call knows: pages of the pool, pages of all sequences, and one more than
# there are runs.
PAGES, NUM_BLOCKS, RUN_EDGES = "pages", "num_blocks", "run_edges"


@dataclass(frozen=True)
class Cache:
    """The cache within a graph: where its rows lie in it, and the pages of all layers.

    Attributes:
        layout: Its layout.
        positions: ``(n,)`` int32: each row's position in its sequence.
        page_starts: ``(n,)`` int32: where the pages of a row's sequence begin in `page_indices`.
        runs: ``(run_edges,)`` int32, from 0 to n: run i is the rows from ``runs[i]`` to before
            ``runs[i + 1]``.
        page_indices: ``(num_blocks,)`` int32: the pages of one sequence after another.
        layers: The tensors of each layer's pages.
    """

    layout: CacheLayout
    positions: nn.Tensor
    page_starts: nn.Tensor
    runs: nn.Tensor
    page_indices: nn.Tensor
    layers: tuple[tuple[nn.Tensor, ...], ...]

    def of_rows(self, wanted: nn.Tensor) -> Cache:
        """Return the cache as some rows see it, each a run of its own.

        Args:
            wanted: ``(k,)`` int32: their indices.
        """

        def edges(rows: te.Tensor) -> te.Tensor:
            return te.compute((rows.shape[0] + 1,), lambda i: i.astype("int32"), name="runs")

        return replace(
            self,
            positions=take_rows(self.positions, wanted),
            page_starts=take_rows(self.page_starts, wanted),
            runs=nn.op.tensor_expr_op(edges, "wanted_runs", [wanted]),
        )


def take_rows(x: nn.Tensor, wanted: nn.Tensor, axis: int = 0) -> nn.Tensor:
    """Return some rows of a tensor.

    Args:
        x: The tensor.
        wanted: ``(k,)`` int32: their indices.
        axis: Of the rows.
    """

    def take(source: te.Tensor, rows: te.Tensor) -> te.Tensor:
        before, behind = source.shape[:axis], source.shape[axis + 1 :]

        def element(*at: tirx.Expr) -> tirx.Expr:
            place = (*at[:axis], rows[at[axis]], *at[axis + 1 :])
            return source[place]

        return te.compute((*before, rows.shape[0], *behind), element, name="rows")

    return nn.op.tensor_expr_op(take, "wanted_rows", [x, wanted])


def cache_spec(layout: CacheLayout, rows: int | str) -> list[nn.spec.Tensor]:
    """Return the specification of the one argument that a function takes the cache by.

    Args:
        layout: The cache's.
        rows: Of a call: 1, or the name of their number.
    """
    edges = rows + 1 if isinstance(rows, int) else RUN_EDGES
    elements = [nn.spec.Tensor((each,), "int32") for each in (rows, rows, edges, NUM_BLOCKS)]
    for _ in range(layout.layers):
        elements += [nn.spec.Tensor((PAGES, *t.shape), t.dtype) for t in layout.tensors]
    return elements


def read_cache(layout: CacheLayout, argument: list[nn.Tensor]) -> Cache:
    """Return the cache that a function was given as its argument."""
    positions, page_starts, runs, page_indices, *rest = argument
    each = len(layout.tensors)
    layers = tuple(tuple(rest[at : at + each]) for at in range(0, len(rest), each))
    return Cache(layout, positions, page_starts, runs, page_indices, layers)
