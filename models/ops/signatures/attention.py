"""The signatures of attention, with and without the KV cache, and of appending to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

from mvlm.models.cache_layout import CacheLayout
from mvlm.models.kv_cache import NUM_BLOCKS, PAGES, RUN_EDGES
from mvlm.models.ops.signatures.signature import Parameter, RowCount, Signature, rows_extent

SomeCacheOperation = TypeVar("SomeCacheOperation", bound="CacheOperation")


@dataclass(frozen=True)
class AttentionSignature(Signature):
    """Bidirectional attention of the vision tower.

    Parameters: ``qkv (length, 3 * hidden)``, ``out (length, hidden)``.

    Attributes:
        length: Positions.
        heads: How many heads.
        head_dim: Channels of a head.
    """

    OP: ClassVar[str] = "attention"

    length: int
    heads: int
    head_dim: int

    @property
    def hidden(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        return (
            Parameter("qkv", (self.length, 3 * self.hidden), "float32"),
            Parameter("out", (self.length, self.hidden), "float32", is_written=True),
        )


@dataclass(frozen=True)
class CacheOperation(Signature):
    """What the operations on the KV cache have in common (see `models.cache_layout`).

    Attributes:
        rows: New positions; None where it is symbolic.
        heads: Query heads.
        kv_heads: Heads of keys and values.
        head_dim: Channels of a head.
        page_size: Positions of a page.
        storage: The dtype of keys and values.
    """

    rows: RowCount
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    storage: str

    _changes_pages: ClassVar[bool] = False

    @classmethod
    def for_cache(
        cls: type[SomeCacheOperation], layout: CacheLayout, rows: RowCount, heads: int
    ) -> SomeCacheOperation:
        """Return the signature for a cache, a number of rows and of query heads."""
        return cls(rows, heads, layout.kv_heads, layout.head_dim, layout.page_size, layout.storage)

    @property
    def layout(self) -> CacheLayout:
        """The layout of one layer's cache."""
        return CacheLayout(1, self.kv_heads, self.head_dim, self.storage, self.page_size)

    @property
    def has_scales(self) -> bool:
        """Whether keys and values are integers, which have scales."""
        return self.layout.has_scales

    @property
    def width(self) -> int:
        """Heads of queries, keys and values."""
        return self.heads + 2 * self.kv_heads

    @property
    def _vectors(self) -> tuple[Parameter, ...]:
        rows, half = rows_extent(self.rows), self.head_dim // 2
        return (
            Parameter("qkv", (rows, self.width, self.head_dim), "float32"),
            Parameter("cos", (rows, half), "float32"),
            Parameter("sin", (rows, half), "float32"),
        )

    @property
    def _places(self) -> tuple[Parameter, ...]:
        rows = rows_extent(self.rows)
        return (
            Parameter("positions", (rows,), "int32"),
            Parameter("page_starts", (rows,), "int32"),
        )

    @property
    def _page_indices(self) -> Parameter:
        return Parameter("page_indices", (NUM_BLOCKS,), "int32")

    @property
    def pages(self) -> tuple[Parameter, ...]:
        """The parameters that hold the pages."""
        return tuple(
            Parameter(name, (PAGES, *tensor.shape), tensor.dtype, self._changes_pages)
            for name, tensor in self.layout.named_tensors.items()
        )


@dataclass(frozen=True)
class AppendSignature(CacheOperation):
    """Appending keys and values of new positions to the KV cache, in place.

    Parameters: ``qkv (M, width, head_dim)``, ``cos`` and ``sin (M, head_dim / 2)``, ``positions``
    and ``page_starts (M,)``, ``page_indices (num_blocks,)``, the pages ``keys``, ``values`` and
    ``scales`` (see `models.kv_cache.Cache`).
    """

    OP: ClassVar[str] = "append_to_cache"
    _changes_pages: ClassVar[bool] = True

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        return (*self._vectors, *self._places, self._page_indices, *self.pages)


@dataclass(frozen=True)
class CachedAttentionSignature(CacheOperation):
    """Causal attention of new positions over the KV cache.

    Parameters: as appending, with ``runs (run_edges,)`` before ``page_indices``, and ``out (M,
    heads, head_dim)``.
    """

    OP: ClassVar[str] = "cached_attention"

    def declare(self) -> tuple[Parameter, ...]:
        """Make the parameters."""
        shape = (rows_extent(self.rows), self.heads, self.head_dim)
        out = Parameter("out", shape, "float32", is_written=True)
        edges = self.rows + 1 if isinstance(self.rows, int) else RUN_EDGES
        runs = Parameter("runs", (edges,), "int32")
        return (*self._vectors, *self._places, runs, self._page_indices, *self.pages, out)
