"""One sequence in TVM's paged KV cache.

The cache stores keys and values page by page; a sequence is a list of pages. A chat is one
sequence: what it has read stays, and a rewind drops positions from its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mvlm.runtime.errors import ContextError
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.loader import global_function

_PAGE_SIZE = 16  # what the attention kernels are compiled for
_SEQUENCE = 0


class KVCache:
    """Keys and values of one sequence.

    Args:
        create: The compiled function ``create_kv_cache``.
        capacity: Positions that fit.
        chunk: Positions that one prefill may append.
    """

    def __init__(self, create: Callable[..., Any], capacity: int, chunk: int) -> None:
        sizes = (1, capacity, chunk, _PAGE_SIZE, 0)
        self.state = create(*(tvm_ffi.Shape((size,)) for size in sizes))
        self.capacity = capacity
        self._begin = global_function("vm.builtin.kv_state_begin_forward")
        self._end = global_function("vm.builtin.kv_state_end_forward")
        self._pop = global_function("vm.builtin.kv_state_popn")
        self._count = global_function("vm.builtin.attention_kv_cache_get_sequence_length")
        global_function("vm.builtin.kv_state_add_sequence")(self.state, _SEQUENCE)

    @property
    def length(self) -> int:
        """Positions that are taken.

        Asked of the cache itself: a count of our own would be wrong after an interruption that
        comes just between the cache's work and the counting.
        """
        length: int = self._count(self.state, _SEQUENCE)
        return length

    def require(self, count: int) -> None:
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
        """Let the functions called within append `count` positions.

        They are taken from the start on. A call that is interrupted may have filled some layers'
        and not others'; the caller then drops them all with :meth:`rewind`.

        Raises:
            ContextError: They do not fit.
        """
        self.require(count)
        self._begin(self.state, tvm_ffi.Shape((_SEQUENCE,)), tvm_ffi.Shape((count,)))
        try:
            yield self.state
        finally:
            self._end(self.state)

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on."""
        surplus = self.length - length
        if surplus > 0:
            self._pop(self.state, _SEQUENCE, surplus)

    def clear(self) -> None:
        """Forget everything."""
        self.rewind(0)
