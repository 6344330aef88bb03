"""Appending to the KV cache on a CPU: a head's vectors are rotated and stored while in registers.

One token is a matter of microseconds, less than it takes to wake another thread; a prompt's heads
are shared between the threads.
"""

from __future__ import annotations

from math import inf

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.ops.definition import keep_parameters
from mvlm.models.ops.rowwise import inverse_scale
from mvlm.models.ops.signatures import AppendSignature
from mvlm.models.quantization import QMAX
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.cpu.dynamic_parallel import loop_of
from mvlm.schedules.cpu.rotation import rotate_into
from mvlm.schedules.cpu.vectors import lanes

# One row is short in any case, and a few of fewer channels.
_SERIAL_CHANNELS = 512


def append_to_cache(op: AppendSignature, knob: Config = default_config) -> tirx.PrimFunc | None:
    """Build the kernel of ``append_to_cache``. It has no knobs."""
    del knob
    if op.head_dim % 2:
        return None
    kv_heads, head_dim, page_size = op.kv_heads, op.head_dim, op.page_size
    heads, half, storage = op.heads, op.head_dim // 2, op.storage
    has_scales, vector, rotate = op.has_scales, lanes(head_dim), rotate_into(head_dim)
    channels, qmax = kv_heads * head_dim, QMAX["int8"]
    loop = loop_of(op, channels, serial_of_one=inf, serial_of_few=_SERIAL_CHANNELS)

    def quantized(value: tirx.Expr, inverse: tirx.Expr) -> tirx.Expr:
        return T.Cast(storage, T.nearbyint(value * inverse) if has_scales else value)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        positions_handle: T.handle,
        page_starts_handle: T.handle,
        page_indices_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
    ):
        rows, num_blocks, pages = T.int64(), T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (rows, half), "float32")
        sin = T.match_buffer(sin_handle, (rows, half), "float32")
        positions = T.match_buffer(positions_handle, (rows,), "int32")
        page_starts = T.match_buffer(page_starts_handle, (rows,), "int32")
        page_indices = T.match_buffer(page_indices_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, page_size), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, page_size, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, page_size), "float32")
        for g in loop(kv_heads):
            for i in T.serial(rows):
                with T.sblock("append"):
                    pair = T.sblock_alloc_buffer((2, head_dim), "float32")
                    lane_absmax = T.sblock_alloc_buffer((2, vector), "float32", scope="local")
                    absmax = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    position: T.let = T.Cast("int64", positions[i])
                    page: T.let = T.Cast(
                        "int64", page_indices[page_starts[i] + positions[i] // page_size]
                    )
                    slot: T.let = position % page_size

                    @T.inline
                    def load():
                        rotate(pair, 0, qkv, cos, sin, i, heads + g)
                        for at in T.serial(head_dim // vector):
                            for c in T.vectorized(vector):
                                d = T.meta_var(at * vector + c)
                                pair[1, d] = qkv[i, heads + kv_heads + g, d]

                    @T.inline
                    def store_scale(part):
                        """Store the scale of keys or values, and leave its inverse in `absmax`."""
                        for c in T.vectorized(vector):
                            lane_absmax[part, c] = T.float32(0)
                        for at in T.serial(head_dim // vector):
                            for c in T.vectorized(vector):
                                lane_absmax[part, c] = T.max(
                                    lane_absmax[part, c], T.abs(pair[part, at * vector + c])
                                )
                        absmax[part] = lane_absmax[part, 0]
                        for c in T.serial(vector):
                            absmax[part] = T.max(absmax[part], lane_absmax[part, c])
                        scales[page, g, part, slot] = absmax[part] / T.float32(qmax)
                        absmax[part] = inverse_scale(absmax[part], qmax)

                    @T.inline
                    def store():
                        for d in T.serial(head_dim):
                            keys[page, g, d, slot] = quantized(pair[0, d], absmax[0])
                        for at in T.serial(head_dim // vector):
                            for c in T.vectorized(vector):
                                d = T.meta_var(at * vector + c)
                                values[page, g, slot, d] = quantized(pair[1, d], absmax[1])

                    load()
                    if has_scales:
                        for part in T.unroll(2):
                            store_scale(part)
                    store()

    return keep_parameters(kernel, op)
