"""How much an engine has to do, and what it holds, at a moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLoad:
    """Plain numbers, for a server's metrics.

    Attributes:
        waiting: Sequences that have no pages.
        running: Sequences that are computed.
        pages: Of the KV cache.
        free_pages: Which nobody holds.
        cached_pages: In the prefix cache, whether sequences share them or not.
        images: Whose embeddings are kept.
    """

    waiting: int
    running: int
    pages: int
    free_pages: int
    cached_pages: int
    images: int
