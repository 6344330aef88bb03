"""What the prefix cache holds of a sequence, taken out of the KV cache and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mvlm.runtime.engine.engine import Engine
from mvlm.runtime.engine.page_pool import PoolFullError
from mvlm.runtime.engine.sequence import PositionKey


@dataclass(frozen=True)
class SavedPrefix:
    """Positions and their pages.

    Attributes:
        keys: Of the positions.
        pages: The content of each page, of all layers; the last one may be partly filled.
    """

    keys: tuple[PositionKey, ...]
    pages: tuple[bytes, ...] = field(repr=False)


def read_prefix(engine: Engine, keys: Sequence[PositionKey]) -> SavedPrefix:
    """Return as many of a sequence's first positions as the prefix cache holds."""
    found = engine.prefixes.match(keys)
    return SavedPrefix(tuple(keys[: found.length]), tuple(map(engine.cache.read_page, found.pages)))


def restore_prefix(engine: Engine, prefix: SavedPrefix) -> None:
    """Put positions into the prefix cache, if there is room for all of them."""
    held: list[int] = []
    try:
        for content in prefix.pages:
            held.append(engine.pool.allocate())
            engine.cache.write_page(held[-1], content)
        engine.prefixes.insert(prefix.keys, held)
    except PoolFullError:
        pass  # the positions are computed when they are needed
    finally:
        for page in held:
            engine.pool.release(page)
