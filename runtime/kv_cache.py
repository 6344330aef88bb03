"""The KV cache: pools of pages that the compiled functions write into.

A sequence is a list of pages, and position p lies in slot ``p % page_size`` of page
``pages[p // page_size]``. Memory is asked of the system for the whole capacity, but the system
gives it page by page, as the positions come. Which page belongs to whom is the engine's matter (see
`runtime.engine`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvlm.runtime.device.device import Device
from mvlm.runtime.errors import CacheMemoryError
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.settings import CacheSpec

# Calls whose arrays are kept for the next call of the same sizes.
_KEPT_ARGUMENTS = 32


@dataclass(frozen=True)
class Run:
    """Neighbouring rows of a call: consecutive positions of one sequence.

    Attributes:
        start: The first one's position.
        count: How many.
        pages: The sequence's pages, as far as the last of the positions at least.
    """

    start: int
    count: int
    pages: Sequence[int]


class KVCache:
    """The pages of all layers.

    Args:
        spec: What a page is made of.
        capacity: Positions that fit, rounded up to whole pages.
        device: In whose memory it lies.

    Raises:
        CacheMemoryError: There is too little memory.

    Attributes:
        spec: What a page is made of.
        pages: How many there are.
    """

    def __init__(self, spec: CacheSpec, capacity: int, device: Device) -> None:
        _check_memory(spec, capacity, device)
        self.spec = spec
        self.pages = -(-capacity // spec.page_size)
        self._device = device
        self._pools = [
            device.empty((self.pages, *tensor.shape), tensor.dtype)
            for _ in range(spec.layers)
            for tensor in spec.tensors
        ]
        self._arguments: OrderedDict[tuple[int, int, int], _Argument] = OrderedDict()

    def argument(self, runs: Sequence[Run]) -> Any:
        """Return the functions' argument ``cache`` for a call; it holds until the next one.

        Args:
            runs: The call's rows.
        """
        rows = sum(run.count for run in runs)
        blocks = sum(len(run.pages) for run in runs)
        # The list of pages may be longer than what is used of it, so that few sizes occur.
        sizes = rows, len(runs) + 1, 1 << max(0, blocks - 1).bit_length()
        found = self._arguments.get(sizes)
        if found is None:
            found = self._arguments[sizes] = _Argument(self._device, sizes, self._pools)
            if len(self._arguments) > _KEPT_ARGUMENTS:
                self._arguments.popitem(last=False)
        self._arguments.move_to_end(sizes)
        found.write(runs)
        return found.value

    def copy_page(self, source: int, target: int) -> None:
        """Copy what a page holds, of all layers, to another page."""
        for pool in self._pools:
            self._device.copy_row(pool, source, target)

    def read_page(self, page: int) -> bytes:
        """Return what a page holds, of all layers."""
        rows = [self._device.read_row(pool, page) for pool in self._pools]
        return b"".join(row.tobytes() for row in rows)

    def write_page(self, page: int, content: bytes) -> None:
        """Set what a page holds, of all layers, to what :meth:`read_page` returned."""
        at = 0
        for number, pool in enumerate(self._pools):
            tensor = self.spec.tensors[number % len(self.spec.tensors)]
            values = np.frombuffer(content, tensor.dtype, math.prod(tensor.shape), at)
            self._device.write_row(pool, page, values.reshape(tensor.shape))
            at += tensor.nbytes


class _Argument:
    """The argument of calls with some numbers of rows, of runs' edges and of pages."""

    def __init__(self, device: Device, sizes: tuple[int, int, int], pools: list[Any]) -> None:
        rows, edges, blocks = sizes
        self._parts = [device.staging((size,), "int32") for size in (rows, rows, edges, blocks)]
        self._parts[3].host[:] = 0
        self.value = tvm_ffi.convert([*(part.array for part in self._parts), *pools])

    def write(self, runs: Sequence[Run]) -> None:
        """Write where the rows of a call lie."""
        positions, page_starts, edges, indices = (part.host for part in self._parts)
        row = block = 0
        for number, run in enumerate(runs):
            end = row + run.count
            positions[row:end] = np.arange(run.start, run.start + run.count)
            page_starts[row:end] = block
            edges[number] = row
            indices[block : block + len(run.pages)] = run.pages
            row, block = end, block + len(run.pages)
        edges[len(runs)] = row
        for part in self._parts:
            part.commit()


def _check_memory(spec: CacheSpec, capacity: int, device: Device) -> None:
    needed, free = spec.nbytes(capacity), device.available_memory()
    if free is not None and needed > free:
        raise CacheMemoryError(
            f"there is too little memory for {capacity} positions",
            expected=f"{needed / 1e6:.0f} MB",
            found=f"{free / 1e6:.0f} MB free",
            fix="Close other programs, or choose a shorter context.",
        )
