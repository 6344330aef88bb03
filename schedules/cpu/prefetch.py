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


def _prefetch(element: Any) -> tirx.Expr:
    return T.call_llvm_intrin(
        "void",
        "llvm.prefetch",
        T.address_of(element),
        T.int32(_READ),
        T.int32(_SECOND_CACHE),
        T.int32(_DATA),
    )


def prefetch_ahead(distance: int, block_bytes: int) -> Any:
    """Return what asks for the block of a matrix that comes some bytes later.

    A part of a kernel, to be called with the matrix ``(panels, blocks, ...)`` and the place of a
    block. Behind the end of a panel lies the next one; behind the matrix nothing is read by asking.

    Args:
        distance: In bytes; 0 if nothing is asked for.
        block_bytes: Bytes of a block.
    """
    blocks = max(1, distance // block_bytes)
    lines = -(-block_bytes // _LINE_BYTES) if distance else 0

    @T.inline
    def prefetch(matrix: tirx.Buffer, panel: tirx.Expr, block: tirx.Expr) -> None:
        inner = T.meta_var(int(matrix.shape[-1]))
        line_elements = T.meta_var(_LINE_BYTES // np.dtype(str(matrix.dtype)).itemsize)
        for line in T.unroll(lines):
            T.evaluate(
                _prefetch(
                    matrix[
                        panel,
                        block + blocks,
                        line * line_elements // inner,
                        line * line_elements % inner,
                    ]
                )
            )

    return prefetch


def prefetch_block(elements: int, inner: int, steps: int, dtype: str, is_enabled: bool) -> Any:
    """Return what asks for a block of a page, a stretch of it at every step of a loop.

    A part of a kernel, to be called with the pool ``(pages, heads, elements / inner, inner)``, the
    page, the head, and the step.

    Args:
        elements: Of the block.
        inner: Of its last axis.
        steps: That the loop takes.
        dtype: Of an element.
        is_enabled: Whether anything is asked for at all.
    """
    line_elements = _LINE_BYTES // np.dtype(dtype).itemsize
    lines = -(-elements // line_elements // steps) if is_enabled else 0

    def place(step: tirx.Expr, line: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
        element = T.min((step * lines + line) * line_elements, elements - 1)
        return element // inner, element % inner

    @T.inline
    def prefetch(pool: tirx.Buffer, page: tirx.Expr, head: tirx.Expr, step: tirx.Expr) -> None:
        for line in T.unroll(lines):
            T.evaluate(_prefetch(pool[page, head, place(step, line)[0], place(step, line)[1]]))

    return prefetch
