"""Bidirectional attention on a CPU: one head at a time, a block of queries in a register tile.

A head's keys are transposed once, so that scores are vectorized over keys; the weighted sum of the
values is vectorized over channels. The last tile of keys is padded with zero keys, whose weights
are never read.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.signature import extents, parameter_types

_ROWS = 4
_COLUMNS = 16


def bidirectional_attention(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``attention``."""
    heads, head_dim = int(definition.attrs["mvlm.heads"]), int(definition.attrs["mvlm.head_dim"])
    length, width = extents(parameter_types(definition)[0])
    hidden = heads * head_dim
    key_tiles = -(-length // _COLUMNS)
    padded = key_tiles * _COLUMNS
    channels = next(tile for tile in (16, 8, 4, 2, 1) if head_dim % tile == 0)
    scale = head_dim**-0.5

    @T.prim_func(private=True, s_tir=True)
    def kernel(qkv_handle: T.handle, out_handle: T.handle):
        qkv = T.match_buffer(qkv_handle, (length, width), "float32")
        out = T.match_buffer(out_handle, (length, hidden), "float32")
        for h in T.parallel(heads):
            with T.sblock("head"):
                keys = T.sblock_alloc_buffer((head_dim, padded), "float32")
                scores = T.sblock_alloc_buffer((_ROWS, padded), "float32")
                acc = T.sblock_alloc_buffer((_ROWS, _COLUMNS), "float32", scope="local")
                largest = T.sblock_alloc_buffer((1,), "float32", scope="local")
                total = T.sblock_alloc_buffer((_ROWS,), "float32", scope="local")
                for d in T.serial(head_dim):
                    for j in T.serial(padded):
                        keys[d, j] = T.float32(0)
                for j in T.serial(length):
                    for d in T.serial(head_dim):
                        keys[d, j] = qkv[j, hidden + h * head_dim + d]
                for block in T.serial((length + _ROWS - 1) // _ROWS):
                    for tile in T.serial(key_tiles):
                        for r in T.unroll(_ROWS):
                            for c in T.vectorized(_COLUMNS):
                                acc[r, c] = T.float32(0)
                        for d in T.serial(head_dim):
                            for r in T.unroll(_ROWS):
                                for c in T.vectorized(_COLUMNS):
                                    acc[r, c] += (
                                        qkv[T.min(block * _ROWS + r, length - 1), h * head_dim + d]
                                        * keys[d, tile * _COLUMNS + c]
                                    )
                        for r in T.unroll(_ROWS):
                            for c in T.vectorized(_COLUMNS):
                                scores[r, tile * _COLUMNS + c] = acc[r, c] * T.float32(scale)
                    for r in T.serial(_ROWS):
                        largest[0] = scores[r, 0]
                        for j in T.serial(length):
                            largest[0] = T.max(largest[0], scores[r, j])
                        total[r] = T.float32(0)
                        for j in T.serial(length):
                            scores[r, j] = T.exp(scores[r, j] - largest[0])
                        for j in T.serial(length):
                            total[r] += scores[r, j]
                    for tile in T.serial(head_dim // channels):
                        for r in T.unroll(_ROWS):
                            for c in T.vectorized(channels):
                                acc[r, c] = T.float32(0)
                        for j in T.serial(length):
                            for r in T.unroll(_ROWS):
                                for c in T.vectorized(channels):
                                    acc[r, c] += (
                                        scores[r, j]
                                        * qkv[j, 2 * hidden + h * head_dim + tile * channels + c]
                                    )
                        for r in T.unroll(_ROWS):
                            if block * _ROWS + r < length:
                                for c in T.vectorized(channels):
                                    out[block * _ROWS + r, h * head_dim + tile * channels + c] = (
                                        acc[r, c] / total[r]
                                    )

    return kernel
