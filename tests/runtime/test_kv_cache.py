"""The KV cache of the runtime: its size, its capacity, and its resident memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.errors import ContextError
from mvlm.runtime.kv_cache import KVCache
from mvlm.runtime.settings import CacheSpec, PageTensor

TENSORS = tuple(PageTensor("int8", (4, 64, 64)) for _ in range(2))
SPEC = CacheSpec(2, 64, (*TENSORS, PageTensor("float32", (4, 2, 64))))
PAGE_BYTES = 2 * (2 * 4 * 64 * 64 + 4 * 2 * 64 * 4)


@pytest.mark.parametrize(("positions", "pages"), [(1, 1), (64, 1), (65, 2), (2048, 32)])
def test_bytes_are_whole_pages(positions: int, pages: int) -> None:
    assert SPEC.nbytes(positions) == pages * PAGE_BYTES


def test_appending_truncating_and_clearing() -> None:
    cache = KVCache(SPEC, 10, CpuDevice())
    with cache.appending(7):
        assert cache.length == 0
    assert cache.length == 7
    with pytest.raises(ContextError, match="at most 10 positions"), cache.appending(4):
        pytest.fail("it does not fit")
    cache.truncate(3)
    cache.truncate(5)  # there are no positions to drop
    assert cache.length == 3
    cache.clear()
    assert cache.length == 0


def test_a_call_that_fails_appends_no_positions() -> None:
    cache = KVCache(SPEC, 10, CpuDevice())
    with pytest.raises(KeyboardInterrupt), cache.appending(4):
        raise KeyboardInterrupt
    assert cache.length == 0


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuDevice, "available_memory", lambda self: PAGE_BYTES)
    KVCache(SPEC, 64, CpuDevice())
    with pytest.raises(ContextError, match="too little memory for 65 positions"):
        KVCache(SPEC, 65, CpuDevice())


def test_an_untrusted_size_is_refused_before_it_is_allocated() -> None:
    huge = PageTensor("int8", (1 << 20, 1 << 20, 1 << 20))
    with pytest.raises(ContextError, match="too little memory"):
        KVCache(CacheSpec(1, 64, (huge,)), 1, CpuDevice())


def test_memory_is_taken_as_positions_come() -> None:
    """Half a gigabyte of capacity costs nothing by itself."""
    before = resident_bytes()
    spec = CacheSpec(1, 64, (PageTensor("int8", (1 << 20,)),))
    cache = KVCache(spec, 64 * 512, CpuDevice())
    assert cache.length == 0
    assert resident_bytes() - before < 16 << 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
