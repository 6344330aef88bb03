"""The pages of the KV cache: which are free, and how many hold each.

A page has holders: sequences, and the prefix cache. It is free when the last of them has released
it. The pool knows numbers of pages alone; their memory belongs to `runtime.kv_cache`.
"""

from __future__ import annotations

from collections.abc import Callable

from mvlm.runtime.errors import MvlmError


class PoolFullError(MvlmError):
    """All pages are held, and none can be evicted."""


class PagePool:
    """Reference counts of pages.

    Args:
        pages: How many there are.

    Attributes:
        evict: Called when no page is free; releases one at least, or returns False.
    """

    def __init__(self, pages: int) -> None:
        self.evict: Callable[[], bool] = lambda: False
        # The page that was freed last comes first: it may still be in the CPU's caches.
        self._free = list(range(pages - 1, -1, -1))
        self._holders = [0] * pages

    @property
    def size(self) -> int:
        """Pages, free or not."""
        return len(self._holders)

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """Return how many hold a page."""
        return self._holders[page]

    def allocate(self) -> int:
        """Return a free page, held once.

        Raises:
            PoolFullError: There is none.
        """
        while not self._free:
            if not self.evict():
                raise PoolFullError("the KV cache is full", expected="a free page", found="none")
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def hold(self, page: int) -> None:
        """Hold a page once more."""
        assert self._holders[page] > 0, f"page {page} is free"
        self._holders[page] += 1

    def release(self, page: int) -> None:
        """Hold a page once less."""
        assert self._holders[page] > 0, f"page {page} is free"
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free.append(page)
