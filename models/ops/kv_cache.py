"""Appending to the KV cache, and causal attention over it (see `models.cache_layout`)."""

from __future__ import annotations

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.script import tirx as T

from mvlm.models.cache_layout import PAGE_SIZE, CacheLayout
from mvlm.models.kv_cache import Cache
from mvlm.models.ops.definition import mark, row_count, without_parameters
from mvlm.models.ops.integers import QMAX_INT8, inverse_scale
from mvlm.models.rotary import RotaryTable, rotated

# The place of the scales among the parameters.
_SCALES = 7


def append_to_cache(
    qkv: nn.Tensor, rotary: RotaryTable, cache: Cache, layer: int
) -> tuple[nn.Tensor, ...]:
    """Store the keys, rotated, and the values of new positions in their pages, in place.

    Args:
        qkv: ``(n, heads + 2 * kv_heads, head_dim)`` float32: queries, keys and values.
        rotary: The new positions' cosines and sines.
        cache: The cache; its page table reaches as far as the new positions.
        layer: Whose pages.

    Returns:
        The layer's tensors, the new positions within.
    """
    rows, width, _ = qkv.shape
    layout, pages = cache.layout, list(cache.layers[layer])
    arguments = [qkv, *rotary, cache.start, cache.page_table, *pages]
    held = len(arguments) - len(pages)
    out: list[nn.Tensor] = nn.op.tensor_ir_inplace_op(
        append_definition(rows, width, layout),
        "append_to_cache",
        arguments,
        [held + index for index in range(len(pages))],
        [nn.Tensor.placeholder(tensor.shape, tensor.dtype) for tensor in pages],
    )
    return tuple(out)


def cached_attention(
    qkv: nn.Tensor, rotary: RotaryTable, cache: Cache, layer: tuple[nn.Tensor, ...]
) -> nn.Tensor:
    """Let every new position attend to all positions up to itself.

    ``softmax(q k^T / sqrt(head_dim)) v`` for each head, query heads sharing KV heads in turn
    (Vaswani et al. 2017, section 3.2; Ainslie et al. 2023).

    Args:
        qkv: As :func:`append_to_cache` takes it.
        rotary: The new positions' cosines and sines.
        cache: The cache.
        layer: What :func:`append_to_cache` returned.

    Returns:
        ``(n, heads, head_dim)`` float32.
    """
    rows, width, head_dim = qkv.shape
    layout = cache.layout
    heads = width - 2 * layout.kv_heads
    out: nn.Tensor = nn.op.tensor_ir_op(
        attention_definition(rows, heads, layout),
        "cached_attention",
        [qkv, *rotary, cache.start, cache.page_table, *layer],
        nn.Tensor.placeholder((rows, heads, head_dim), "float32"),
    )
    return out


def _operation(reference: tirx.PrimFunc, name: str, layout: CacheLayout) -> tirx.PrimFunc:
    """Return the operation `name`, without the parameter of the scales if there are none."""
    left_out = () if layout.has_scales else (_SCALES,)
    definition = without_parameters(reference, left_out)
    return mark(definition, name, storage=layout.storage, kv_heads=layout.kv_heads)


def append_definition(rows: object, width: int, layout: CacheLayout) -> tirx.PrimFunc:
    """Return the definition for so many rows, an integer or not known, of `width` heads."""
    kv_heads, head_dim, storage = layout.kv_heads, layout.head_dim, layout.storage
    heads, half = width - 2 * kv_heads, head_dim // 2
    m, has_scales = row_count(rows), layout.has_scales

    def quantized(value: tirx.Expr, absmax: tirx.Expr) -> tirx.Expr:
        if not has_scales:
            return T.Cast(storage, value)
        return T.Cast(storage, T.nearbyint(value * inverse_scale(absmax)))

    @T.prim_func(private=True, s_tir=True)
    def reference(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        start_handle: T.handle,
        table_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
    ) -> None:
        num_blocks, pages = T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (m, width, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (m, half), "float32")
        sin = T.match_buffer(sin_handle, (m, half), "float32")
        start = T.match_buffer(start_handle, (1,), "int32")
        table = T.match_buffer(table_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, PAGE_SIZE), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, PAGE_SIZE, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, PAGE_SIZE), "float32")
        for i, g in T.grid(m, kv_heads):
            with T.sblock("append"):
                vector = T.sblock_alloc_buffer((2, head_dim), "float32")
                absmax = T.sblock_alloc_buffer((2,), "float32")
                position: T.let = T.Cast("int64", start[0]) + i
                page: T.let = T.Cast("int64", table[position // PAGE_SIZE])
                slot: T.let = position % PAGE_SIZE
                for d in range(head_dim):
                    vector[0, d] = rotated(qkv, (i, heads + g), d, cos, sin)
                    vector[1, d] = qkv[i, heads + kv_heads + g, d]
                if has_scales:
                    for part in range(2):
                        absmax[part] = T.float32(0)
                        for d in range(head_dim):
                            absmax[part] = T.max(absmax[part], T.abs(vector[part, d]))
                        scales[page, g, part, slot] = absmax[part] / T.float32(QMAX_INT8)
                for d in range(head_dim):
                    keys[page, g, d, slot] = quantized(vector[0, d], absmax[0])
                    values[page, g, slot, d] = quantized(vector[1, d], absmax[1])

    return _operation(reference, "append_to_cache", layout)


def attention_definition(rows: object, heads: int, layout: CacheLayout) -> tirx.PrimFunc:
    """Return the definition for so many rows, an integer or not known, and query heads."""
    kv_heads, head_dim, storage = layout.kv_heads, layout.head_dim, layout.storage
    width, half, group = heads + 2 * kv_heads, head_dim // 2, heads // kv_heads
    m, has_scales = row_count(rows), layout.has_scales

    @T.prim_func(private=True, s_tir=True)
    def reference(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        start_handle: T.handle,
        table_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
        out_handle: T.handle,
    ) -> None:
        num_blocks, pages = T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (m, width, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (m, half), "float32")
        sin = T.match_buffer(sin_handle, (m, half), "float32")
        start = T.match_buffer(start_handle, (1,), "int32")
        table = T.match_buffer(table_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, PAGE_SIZE), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, PAGE_SIZE, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, PAGE_SIZE), "float32")
        out = T.match_buffer(out_handle, (m, heads, head_dim), "float32")
        for i, h in T.grid(m, heads):
            with T.sblock("attend"):
                scores = T.sblock_alloc_buffer((num_blocks * PAGE_SIZE,), "float32")
                row_max = T.sblock_alloc_buffer((1,), "float32")
                row_sum = T.sblock_alloc_buffer((1,), "float32")
                kv_len = T.meta_var(T.Cast("int64", start[0]) + i + 1)
                row_max[0] = T.min_value("float32")
                for j in range(kv_len):
                    page: T.let = T.Cast("int64", table[j // PAGE_SIZE])
                    scores[j] = T.float32(0)
                    for d in range(head_dim):
                        scores[j] += rotated(qkv, (i, h), d, cos, sin) * T.Cast(
                            "float32", keys[page, h // group, d, j % PAGE_SIZE]
                        )
                    scores[j] *= T.float32(head_dim**-0.5)
                    if has_scales:
                        scores[j] *= scales[page, h // group, 0, j % PAGE_SIZE]
                    row_max[0] = T.max(row_max[0], scores[j])
                row_sum[0] = T.float32(0)
                for d in range(head_dim):
                    out[i, h, d] = T.float32(0)
                for j in range(kv_len):
                    scores[j] = T.exp(scores[j] - row_max[0])
                    row_sum[0] += scores[j]
                    if has_scales:
                        scores[j] *= scales[table[j // PAGE_SIZE], h // group, 1, j % PAGE_SIZE]
                    for d in range(head_dim):
                        out[i, h, d] += scores[j] * T.Cast(
                            "float32", values[table[j // PAGE_SIZE], h // group, j % PAGE_SIZE, d]
                        )
                for d in range(head_dim):
                    out[i, h, d] = out[i, h, d] / row_sum[0]

    return _operation(reference, "cached_attention", layout)
