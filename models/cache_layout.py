"""The KV cache's layout: pages of keys and values, and how a position's are stored.

The cache is a pool of pages for each layer, and a sequence is a list of pages, its page table
(PagedAttention, arXiv 2309.06180, section 4). Position p lies in slot ``p % 64`` of page
``table[p // 64]``. A page holds, for each KV head, its keys channel by channel, so that scores
are vectorized over positions, and its values position by position, so that their weighted sum is
vectorized over channels:

===========  ==================================  ==============================
tensor       shape                               dtype
===========  ==================================  ==============================
keys         (pages, kv_heads, head_dim, 64)     the storage's
values       (pages, kv_heads, 64, head_dim)     the storage's
scales       (pages, kv_heads, 2, 64)            float32
===========  ==================================  ==============================

An ``int8`` vector of a head is ``x ~ integer * scale`` with ``scale = max|x| / 127``; the keys'
scales come first. A cache of floats has no tensor of scales. Keys are stored rotated. Nothing is
promised of slots that no position has.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.models.config import LlamaConfig
from mvlm.runtime.settings import CacheSpec, PageTensor

# Whole vectors on every CPU, and little to copy where two sequences part.
PAGE_SIZE = 64


@dataclass(frozen=True)
class CacheLayout:
    """The layout of a decoder's cache.

    Attributes:
        layers: Of the decoder.
        kv_heads: Of each layer.
        head_dim: Channels of a head.
        storage: One of :data:`~mvlm.models.quantization.CACHE_STORAGES`.
        page_size: Positions of a page.
    """

    layers: int
    kv_heads: int
    head_dim: int
    storage: str
    page_size: int = PAGE_SIZE

    @property
    def has_scales(self) -> bool:
        """Whether keys and values are stored as integers, which have scales."""
        return self.storage == "int8"

    @property
    def named_tensors(self) -> dict[str, PageTensor]:
        """One page's tensors of one layer: keys, values, and scales if there are any."""
        heads, width, size = self.kv_heads, self.head_dim, self.page_size
        tensors = {
            "keys": PageTensor(self.storage, (heads, width, size)),
            "values": PageTensor(self.storage, (heads, size, width)),
        }
        if self.has_scales:
            tensors["scales"] = PageTensor("float32", (heads, 2, size))
        return tensors

    @property
    def tensors(self) -> tuple[PageTensor, ...]:
        """The same in order."""
        return tuple(self.named_tensors.values())

    def spec(self) -> CacheSpec:
        """Return what the runtime must know of it."""
        return CacheSpec(self.layers, self.page_size, self.tensors)


def cache_layout(config: LlamaConfig, storage: str) -> CacheLayout:
    """Return the layout of a decoder's cache."""
    return CacheLayout(
        config.num_hidden_layers, config.num_key_value_heads, config.head_dim, storage
    )
