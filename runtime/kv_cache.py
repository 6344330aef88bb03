"""The KV cache of one sequence: pools of pages that the compiled functions write into.

A sequence is a list of pages, and position p lies in slot ``p % page_size`` of page
``table[p // page_size]``. Memory is asked of the system for the whole capacity, but the system
gives it page by page, as the positions come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mvlm.runtime.device.device import Device
from mvlm.runtime.errors import ContextError
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.settings import CacheSpec


class KVCache:
    """Keys and values of one sequence.

    Args:
        spec: What a page is made of.
        capacity: Positions that fit.
        device: In whose memory it lies.

    Raises:
        ContextError: There is too little memory.

    Attributes:
        capacity: Positions that fit.
        length: Positions that are taken.
    """

    def __init__(self, spec: CacheSpec, capacity: int, device: Device) -> None:
        _check_memory(spec, capacity, device)
        self.capacity = capacity
        self.length = 0
        pages = -(-capacity // spec.page_size)
        # The position from which a call appends.
        self._start = device.staging((1,), "int32")
        table = device.upload(np.arange(pages, dtype=np.int32))
        pools = [
            device.empty((pages, *tensor.shape), tensor.dtype)
            for _ in range(spec.layers)
            for tensor in spec.tensors
        ]
        self._argument = tvm_ffi.convert([self._start.array, table, *pools])

    def reserve(self, count: int) -> None:
        """Check that `count` more positions fit.

        Raises:
            ContextError: They do not.
        """
        wanted = self.length + count
        if wanted > self.capacity:
            raise ContextError(
                "the context is full", expected=f"at most {self.capacity} positions", found=wanted
            )

    @contextmanager
    def appending(self, count: int) -> Iterator[Any]:
        """Let the function called within append `count` positions.

        They are taken once it has returned: a call that is interrupted may have filled some
        layers' pages, and the next writes over them.

        Yields:
            The functions' argument ``cache``.

        Raises:
            ContextError: They do not fit.
        """
        self.reserve(count)
        self._start.host[0] = self.length
        self._start.commit()
        yield self._argument
        self.length += count

    def truncate(self, length: int) -> None:
        """Drop all positions from `length` on; does nothing if there are none."""
        self.length = min(self.length, length)

    def clear(self) -> None:
        """Drop all positions."""
        self.truncate(0)


def _check_memory(spec: CacheSpec, capacity: int, device: Device) -> None:
    needed, free = spec.nbytes(capacity), device.available_memory()
    if free is not None and needed > free:
        raise ContextError(
            f"there is too little memory for {capacity} positions",
            expected=f"{needed / 1e6:.0f} MB",
            found=f"{free / 1e6:.0f} MB free",
            fix="Close other programs, or choose a shorter context.",
        )
