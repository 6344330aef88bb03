"""Software prefetching, as inline functions of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

_LINE_BYTES = 64
# Arguments of llvm.prefetch: read; into L2, which has twice as many outstanding lines as L1; data.
_READ, _L2, _DATA = 0, 2, 1


def _prefetch(element: Any) -> tirx.Expr:
    return T.call_llvm_intrin(
        "void",
        "llvm.prefetch",
        T.address_of(element),
        T.int32(_READ),
        T.int32(_L2),
        T.int32(_DATA),
    )


def prefetch_ahead(distance: int, block_bytes: int) -> Any:
    """Return an inline function that prefetches the block of a matrix at some distance.

    It takes the matrix ``(panels, blocks, ...)`` and the panel and index of a block. The next panel
    follows the end of a panel; prefetching past the end of the matrix is harmless.

    Args:
        distance: In bytes; 0 disables prefetching.
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
    """Return an inline function that prefetches a block of a page, a part at every step of a loop.

    It takes the pool ``(pages, heads, elements / inner, inner)``, the
    page, the head, and the step.

    Args:
        elements: Of the block.
        inner: Of its last axis.
        steps: That the loop takes.
        dtype: Of an element.
        is_enabled: Whether anything is prefetched.
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
