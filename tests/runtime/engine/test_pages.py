"""Pages, sequences and the prefix cache, against a model in plain Python.

The model knows what was written to each page: a key at each slot. Whatever sequences and cache do,
a sequence must find its own keys in its pages, and a page is free exactly when nobody holds it.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mvlm.runtime.engine.page_pool import PagePool, PoolFullError
from mvlm.runtime.engine.prefix_cache import PrefixCache
from mvlm.runtime.engine.sequence import PagedSequence

PAGES, PAGE_SIZE = 12, 4
# Few keys, so that beginnings agree.
some_keys = st.lists(st.integers(0, 1), max_size=3 * PAGE_SIZE)


class Engine(RuleBasedStateMachine):
    """Sequences that are begun, extended, forked, cut and finished in any order."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[list[int | None]] = [[None] * PAGE_SIZE for _ in range(PAGES)]
        self.pool = PagePool(PAGES)
        self.cache = PrefixCache(self.pool, PAGE_SIZE)
        self.running: dict[int, tuple[PagedSequence, list[int]]] = {}
        self.begun = 0

    def _copy(self, source: int, target: int) -> None:
        self.memory[target] = list(self.memory[source])

    def _add(self, sequence: PagedSequence, keys: list[int]) -> int:
        self.begun += 1
        self.running[self.begun] = sequence, keys
        return self.begun

    @rule(target=sequences, prompt=some_keys)
    def begin(self, prompt: list[int]) -> int:
        """As an engine does: share what is cached, but for the last position."""
        sequence = PagedSequence(self.pool, PAGE_SIZE, self._copy)
        found = self.cache.match(prompt)
        assert found.length <= len(prompt)
        sequence.adopt(prompt[: found.length], found.pages)
        return self._add(sequence, prompt[: found.length])

    @rule(number=sequences, keys=some_keys)
    def extend(self, number: int, keys: list[int]) -> None:
        if number not in self.running:
            return
        sequence, known = self.running[number]
        before = list(sequence.pages)
        room = self.pool.free + self.cache.evictable
        try:
            sequence.reserve(len(keys))
        except PoolFullError:
            assert sequence.pages == before
            return
        assert sequence.pages_needed(len(keys)) == 0 or not keys
        del room
        for position, key in enumerate(keys, len(sequence)):
            page = sequence.pages[position // PAGE_SIZE]
            assert self.pool.holders(page) == 1, "a shared page is written to"
            self.memory[page][position % PAGE_SIZE] = key
        sequence.append(keys)
        known += keys

    @rule(target=sequences, number=sequences)
    def fork(self, number: int) -> int:
        if number not in self.running:
            return number
        sequence, known = self.running[number]
        return self._add(sequence.fork(), list(known))

    @rule(number=sequences, length=st.integers(0, 3 * PAGE_SIZE))
    def truncate(self, number: int, length: int) -> None:
        if number in self.running:
            sequence, known = self.running[number]
            sequence.truncate(length)
            del known[length:]

    @rule(number=consumes(sequences), is_kept=st.booleans())
    def finish(self, number: int, is_kept: bool) -> None:
        """An answer that is complete stays in the cache; one that is cancelled may not."""
        if number in self.running:
            sequence, known = self.running.pop(number)
            if is_kept:
                self.cache.insert(known, sequence.pages)
            sequence.truncate(0)

    @rule()
    def clear(self) -> None:
        self.cache.clear()

    @invariant()
    def sequences_find_their_keys(self) -> None:
        for sequence, known in self.running.values():
            assert sequence.keys == known and len(sequence) == len(known)
            found = [
                self.memory[sequence.pages[at // PAGE_SIZE]][at % PAGE_SIZE]
                for at in range(len(known))
            ]
            assert found == known

    @invariant()
    def no_page_is_leaked_or_shared_wrongly(self) -> None:
        held = Counter(page for sequence, _ in self.running.values() for page in sequence.pages)
        held.update(self.cache._blocks.keys())
        assert [self.pool.holders(page) for page in range(PAGES)] == [
            held[page] for page in range(PAGES)
        ]
        assert self.pool.free == PAGES - len(held)

    @invariant()
    def the_cache_holds_what_it_says(self) -> None:
        for page, block in self.cache._blocks.items():
            assert block.page == page and 0 < len(block.keys) <= PAGE_SIZE
            assert tuple(self.memory[page][: len(block.keys)]) == block.keys
            assert len(block.keys) == PAGE_SIZE or not block.children
            assert block.parent is not None and block in block.parent.children

    def teardown(self) -> None:
        for sequence, _ in self.running.values():
            sequence.truncate(0)
        self.cache.clear()
        assert self.pool.free == PAGES


TestEngine = Engine.TestCase
TestEngine.settings = settings(
    max_examples=170, stateful_step_count=60, deadline=None, derandomize=True
)


def test_a_full_pool_says_so() -> None:
    pool = PagePool(1)
    pool.allocate()
    with pytest.raises(PoolFullError, match="the KV cache is full"):
        pool.allocate()
