"""A sequence of the engine: its positions' keys, and the pages that hold them.

A position's key says what was computed there: a token's id, or an image's digest and row. Two
sequences whose keys agree up to a position have the same keys and values there (the kernels compute
a row alike in any company), so they may share pages. A page that others hold as well is copied
before it is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from mvlm.runtime.engine.page_pool import PagePool

# A token's id, or an image's digest and row.
PositionKey: TypeAlias = int | tuple[bytes, int]
# Copies a page's content to another page.
CopyPage = Callable[[int, int], None]


class PagedSequence:
    """A list of positions in pages.

    Args:
        pool: Of the pages.
        page_size: Positions of a page.
        copy_page: Copies a page's content: from the first page to the second.

    Attributes:
        keys: Of the positions, in order.
        pages: Page i holds the positions from ``i * page_size`` on.
    """

    def __init__(self, pool: PagePool, page_size: int, copy_page: CopyPage) -> None:
        self._pool, self._page_size, self._copy_page = pool, page_size, copy_page
        self.keys: list[PositionKey] = []
        self.pages: list[int] = []

    def __len__(self) -> int:
        """Positions that are taken."""
        return len(self.keys)

    def adopt(self, keys: Sequence[PositionKey], pages: Sequence[int]) -> None:
        """Begin with positions that lie in pages of others; the sequence is empty before.

        Args:
            keys: Of the positions.
            pages: Which hold them. Each is held once more.
        """
        assert not self.pages
        for page in pages:
            self._pool.hold(page)
        self.keys, self.pages = list(keys), list(pages)

    def pages_needed(self, count: int) -> int:
        """Return how many pages `reserve` would allocate for so many more positions."""
        end = len(self.keys) + count
        return -(-end // self._page_size) - len(self.pages) + (count > 0 and self._is_shared())

    def reserve(self, count: int) -> None:
        """Make room for `count` more positions, in pages that no one else holds.

        Raises:
            PoolFullError: There are too few pages; the sequence has what it had before.
        """
        if count <= 0:
            return
        before = len(self.pages)
        try:
            while len(self.pages) * self._page_size < len(self.keys) + count:
                self.pages.append(self._pool.allocate())
            if self._is_shared():
                self._own_last_page()
        except BaseException:
            self._release_from(before)
            raise

    def append(self, keys: Sequence[PositionKey]) -> None:
        """Take the positions that have been computed in what was reserved."""
        self.keys += keys
        assert len(self.keys) <= len(self.pages) * self._page_size

    def truncate(self, length: int) -> None:
        """Drop all positions from `length` on; does nothing if there are none."""
        del self.keys[length:]
        self._release_from(-(-len(self.keys) // self._page_size))

    def fork(self) -> PagedSequence:
        """Return another sequence of the same positions, which shares the pages."""
        other = PagedSequence(self._pool, self._page_size, self._copy_page)
        held = -(-len(self.keys) // self._page_size)
        other.adopt(self.keys, self.pages[:held])
        return other

    def _is_shared(self) -> bool:
        """Whether the page that the next position lies in is held by others, too."""
        index = len(self.keys) // self._page_size
        return index < len(self.pages) and self._pool.holders(self.pages[index]) > 1

    def _own_last_page(self) -> None:
        index = len(self.keys) // self._page_size
        shared, own = self.pages[index], self._pool.allocate()
        try:
            self._copy_page(shared, own)
        except BaseException:
            self._pool.release(own)
            raise
        self.pages[index] = own
        self._pool.release(shared)

    def _release_from(self, count: int) -> None:
        for page in self.pages[count:]:
            self._pool.release(page)
        del self.pages[count:]


def common_prefix(one: Sequence[PositionKey], other: Sequence[PositionKey]) -> int:
    """Return how many positions two sequences begin with in common."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
