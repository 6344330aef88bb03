"""The prefix cache: pages by the keys of their positions, which later prompts share.

It is a tree. A node is a block: a page, and the keys of the positions that it holds; all of a page
but for a leaf's. A path from the root is the beginning of a prompt. A prompt that begins like one
in the tree shares the pages of whole blocks, and takes a copy of the page in which the two part.

The cache holds each of its pages once, and evicts the block that was used longest ago when the pool
has no free page left; those that sequences hold stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from mvlm.runtime.engine.page_pool import PagePool
from mvlm.runtime.engine.sequence import PositionKey, common_prefix


@dataclass(eq=False)
class _Block:
    keys: tuple[PositionKey, ...]
    page: int
    parent: _Block | None
    children: list[_Block] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """What the cache has of a prompt.

    Attributes:
        pages: Which hold the prompt's first positions; nobody may write to them.
        length: How many positions; they may end within the last page.
    """

    pages: tuple[int, ...]
    length: int


class PrefixCache:
    """Pages that stay after the sequences that computed them.

    Args:
        pool: Of the pages; the cache makes room in it.
        page_size: Positions of a page.
    """

    def __init__(self, pool: PagePool, page_size: int) -> None:
        self._pool, self._page_size = pool, page_size
        self._root = _Block((), -1, None)
        # In the order in which they are evicted: a block behind another one comes before it.
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        pool.evict = self.evict

    @property
    def pages(self) -> int:
        """Pages that the cache holds."""
        return len(self._blocks)

    @property
    def evictable(self) -> int:
        """Pages that nobody else holds, which can be made free."""
        return sum(self._pool.holders(block.page) == 1 for block in self._blocks.values())

    def match(self, keys: Sequence[PositionKey]) -> Match:
        """Find the longest beginning of a prompt that the cache holds, and mark it as used."""
        path, length = self._walk(keys)
        self._touch(path)
        return Match(tuple(block.page for block in path), length)

    def insert(self, keys: Sequence[PositionKey], pages: Sequence[int]) -> None:
        """Keep a sequence's pages. Those whose keys are there already are not kept twice.

        Args:
            keys: Of the positions.
            pages: Which hold them. Nobody writes to these positions any more.
        """
        node, path = self._root, []
        for index, page in enumerate(pages):
            block = tuple(keys[index * self._page_size : (index + 1) * self._page_size])
            if not block:
                break
            node = self._find_or_add(node, block, page)
            path.append(node)
            if len(block) < self._page_size:
                break
        self._touch(path)

    def evict(self) -> bool:
        """Release the page of the block that was used longest ago; False if none can be.

        Blocks with others behind them go last, and take those along: sequences may hold the pages
        behind one that nobody else holds, if they computed the same positions twice.
        """
        unheld = [each for each in self._blocks.values() if self._pool.holders(each.page) == 1]
        if not unheld:
            return False
        self._remove(next((each for each in unheld if not each.children), unheld[0]))
        return True

    def clear(self) -> None:
        """Release all pages."""
        for block in self._blocks.values():
            self._pool.release(block.page)
        self._blocks.clear()
        self._root.children.clear()

    def _walk(self, keys: Sequence[PositionKey]) -> tuple[list[_Block], int]:
        """Return the blocks that a prompt begins with, and how many positions that is."""
        node, path, length = self._root, [], 0
        while length < len(keys):
            wanted = tuple(keys[length : length + self._page_size])
            best, common = None, 0
            for child in node.children:
                same = common_prefix(child.keys, wanted)
                if same > common:
                    best, common = child, same
            if best is None:
                break
            path.append(best)
            length += common
            node = best
            if common < self._page_size:
                break
        return path, length

    def _find_or_add(self, parent: _Block, keys: tuple[PositionKey, ...], page: int) -> _Block:
        for child in parent.children:
            common = common_prefix(child.keys, keys)
            if common == len(keys):
                return child
            if common == len(child.keys):
                # The block has grown since: its page gives way to the one that holds more.
                self._pool.hold(page)
                self._pool.release(child.page)
                del self._blocks[child.page]
                child.keys, child.page = keys, page
                self._blocks[page] = child
                return child
        block = _Block(keys, page, parent)
        parent.children.append(block)
        self._pool.hold(page)
        self._blocks[page] = block
        return block

    def _remove(self, block: _Block) -> None:
        assert block.parent is not None
        block.parent.children.remove(block)
        behind = [block]
        while behind:
            each = behind.pop()
            behind += each.children
            del self._blocks[each.page]
            self._pool.release(each.page)

    def _touch(self, path: Sequence[_Block]) -> None:
        for block in reversed(path):
            self._blocks.move_to_end(block.page)
