"""Asking for memory before it is read, as a part of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

_LINE_BYTES = 64
# llvm.prefetch: to read; into the second cache, which keeps twice as many lines on their way as the
# first one; data.
_READ, _SECOND_CACHE, _DATA = 0, 2, 1


def fetch_block(elements: int, inner: int, steps: int, dtype: str, is_wanted: bool) -> Any:
    """Return what asks for a block of a page, a stretch of it at every step of a loop.

    A part of a kernel, to be called with the pool ``(pages, heads, elements / inner, inner)``, the
    page, the head, and the step.

    Args:
        elements: Of the block.
        inner: Of its last axis.
        steps: That the loop takes.
        dtype: Of an element.
        is_wanted: Whether anything is asked for at all.
    """
    of_a_line = _LINE_BYTES // np.dtype(dtype).itemsize
    lines = -(-elements // of_a_line // steps) if is_wanted else 0

    def place(step: tirx.Expr, line: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
        element = T.min((step * lines + line) * of_a_line, elements - 1)
        return element // inner, element % inner

    @T.inline
    def fetch(pool: tirx.Buffer, page: tirx.Expr, head: tirx.Expr, step: tirx.Expr) -> None:
        for line in T.unroll(lines):
            T.evaluate(
                T.call_llvm_intrin(
                    "void",
                    "llvm.prefetch",
                    T.address_of(pool[page, head, place(step, line)[0], place(step, line)[1]]),
                    T.int32(_READ),
                    T.int32(_SECOND_CACHE),
                    T.int32(_DATA),
                )
            )

    return fetch
