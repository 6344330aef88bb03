"""The KV cache of the runtime: its size, where calls' rows lie in it, and its resident memory."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.device.device import Device, DeviceArray, StagingBuffer
from mvlm.runtime.errors import ContextError
from mvlm.runtime.kv_cache import KVCache, Run
from mvlm.runtime.settings import CacheSpec, PageTensor
from tests.runtime.separate_device import SeparateDevice

TENSORS = tuple(PageTensor("int8", (4, 64, 64)) for _ in range(2))
SPEC = CacheSpec(2, 64, (*TENSORS, PageTensor("float32", (4, 2, 64))))
PAGE_BYTES = 2 * (2 * 4 * 64 * 64 + 4 * 2 * 64 * 4)


@pytest.mark.parametrize(("positions", "pages"), [(1, 1), (64, 1), (65, 2), (2048, 32)])
def test_bytes_are_whole_pages(positions: int, pages: int) -> None:
    assert SPEC.nbytes(positions) == pages * PAGE_BYTES


@pytest.mark.parametrize(("positions", "pages"), [(1, 1), (64, 1), (65, 2), (2048, 32)])
def test_a_capacity_is_whole_pages(positions: int, pages: int) -> None:
    cache = KVCache(SPEC, positions, CpuDevice())
    assert cache.pages == pages
    _, _, _, _, *pools = cache.argument([Run(0, 1, [0])])
    assert [(pool.shape, str(pool.dtype)) for pool in pools] == [
        ((pages, *tensor.shape), tensor.dtype) for tensor in SPEC.tensors * SPEC.layers
    ]


class Place(NamedTuple):
    """Where a call's rows lie in the cache."""

    positions: list[int]
    page_starts: list[int]
    runs: list[int]
    page_indices: list[int]


def place(cache: KVCache, runs: list[Run]) -> Place:
    """What the functions are told; of the pages, those that the runs have."""
    *found, indices = (device_array(each) for each in list(cache.argument(runs))[:4])
    used = sum(len(run.pages) for run in runs)
    assert ((indices >= 0) & (indices < cache.pages)).all()
    return Place(*(each.tolist() for each in found), indices[:used].tolist())


def device_array(array: DeviceArray) -> npt.NDArray[np.int32]:
    assert str(array.dtype) == "int32"
    return CpuDevice().download(array)


def test_where_rows_lie() -> None:
    """A chunk, a token, and the first rows of a sequence: the pages of one after another."""
    cache = KVCache(SPEC, 64 * 8, CpuDevice())
    assert place(cache, [Run(0, 3, [5])]) == ([0, 1, 2], [0, 0, 0], [0, 3], [5])
    assert place(cache, [Run(62, 4, [7, 2]), Run(130, 1, [6, 0, 3]), Run(0, 2, [1])]) == (
        [62, 63, 64, 65, 130, 0, 1],
        [0, 0, 0, 0, 2, 5, 5],
        [0, 4, 5, 7],
        [7, 2, 6, 0, 3, 1],
    )
    assert place(cache, [Run(64, 1, range(2))]) == ([64], [0], [0, 1], [0, 1])


def test_a_call_is_told_nothing_of_earlier_ones() -> None:
    """Calls of equal sizes share their arrays, of which few are kept."""
    cache, random = KVCache(SPEC, 64 * 8, CpuDevice()), np.random.default_rng(0)
    for _ in range(300):
        runs = [
            Run(int(start), int(count), random.permutation(8)[:pages].tolist())
            for start, count, pages in random.integers((0, 1, 1), (100, 6, 9), (3, 3))
        ][: int(random.integers(1, 4))]
        fresh = KVCache(SPEC, 64 * 8, CpuDevice())
        assert place(cache, runs) == place(fresh, runs)


class CountingDevice(CpuDevice):
    """Knows the arrays that calls are prepared in."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[npt.NDArray[Any]]] = []

    def staging(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> StagingBuffer:
        buffer = super().staging(shape, dtype)
        self.made.append(weakref.ref(buffer.host))
        return buffer


def test_arrays_of_calls_are_made_once_and_do_not_pile_up() -> None:
    device = CountingDevice()
    cache = KVCache(SPEC, 64 * 8, device)
    for start in range(64 * 8):  # tokens of an answer; lists of 1, 2, 4 and 8 pages
        cache.argument([Run(start, 1, range(start // 64 + 1))])
    assert len(device.made) == 4 * 4
    for count in range(1, 65):  # prompts of every length
        cache.argument([Run(0, count, [0])])
    gc.collect()
    assert len(device.made) == 4 * (4 + 63)
    assert sum(each() is not None for each in device.made) <= 4 * 32


def write(device: Device, array: DeviceArray, values: npt.NDArray[Any]) -> None:
    """Write to the device's memory, as compiled functions do."""
    if isinstance(device, SeparateDevice):
        device.write(array, values)
    else:
        np.from_dlpack(array)[:] = values


@pytest.mark.parametrize(
    "device", [CpuDevice(), SeparateDevice()], ids=lambda device: type(device).__name__
)
def test_a_page_is_copied_in_all_layers(device: Device) -> None:
    cache = KVCache(SPEC, 64 * 4, device)
    _, _, _, _, *pools = cache.argument([Run(0, 1, [0])])
    for number, pool in enumerate(pools):
        values = np.empty(pool.shape, str(pool.dtype))
        values[:] = 10 * number + np.arange(4).reshape(4, *[1] * (values.ndim - 1))
        write(device, pool, values)
    cache.copy_page(1, 3)
    for number, pool in enumerate(pools):
        held = device.download(pool).reshape(4, -1)
        assert (held == 10 * number + np.array([[0], [1], [2], [1]])).all()


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
    assert cache.pages == 512
    assert resident_bytes() - before < 16 << 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
