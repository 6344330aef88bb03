"""Appending to the KV cache, and causal attention over it (see `models.cache_layout`)."""

from __future__ import annotations

import functools

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.script import tirx as T

from mvlm.models.kv_cache import Cache
from mvlm.models.ops.definition import call, keep_parameters, known_rows, mark
from mvlm.models.ops.rowwise import inverse_scale
from mvlm.models.ops.signatures import AppendSignature, CachedAttentionSignature, CacheOperation
from mvlm.models.ops.signatures.attention import SomeCacheOperation
from mvlm.models.quantization import QMAX
from mvlm.models.rotary import RotaryTable, rotated


def append_to_cache(
    qkv: nn.Tensor, rotary: RotaryTable, cache: Cache, layer: int
) -> tuple[nn.Tensor, ...]:
    """Store the keys, rotated, and the values of new positions in their pages, in place.

    Args:
        qkv: ``(n, heads + 2 * kv_heads, head_dim)`` float32: queries, keys and values.
        rotary: The new positions' cosines and sines.
        cache: The cache; the sequences' pages reach as far as the new positions.
        layer: Whose pages.

    Returns:
        The layer's tensors, the new positions within.
    """
    op = _signature(AppendSignature, qkv, cache)
    arguments = _arguments(qkv, rotary, cache, cache.layers[layer])
    return tuple(call(append_definition(op), op, op.OP, arguments))


def cached_attention(
    qkv: nn.Tensor, rotary: RotaryTable, cache: Cache, layer: tuple[nn.Tensor, ...]
) -> nn.Tensor:
    """Let every new position attend to all positions of its sequence up to itself.

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
    op = _signature(CachedAttentionSignature, qkv, cache)
    arguments = _arguments(qkv, rotary, cache, layer)
    (out,) = call(attention_definition(op), op, op.OP, arguments | {"runs": cache.runs})
    return out


def _signature(kind: type[SomeCacheOperation], qkv: nn.Tensor, cache: Cache) -> SomeCacheOperation:
    rows, width, _ = qkv.shape
    heads = width - 2 * cache.layout.kv_heads
    return kind.for_cache(cache.layout, known_rows(rows), heads)


def _arguments(
    qkv: nn.Tensor, rotary: RotaryTable, cache: Cache, pages: tuple[nn.Tensor, ...]
) -> dict[str, nn.Tensor]:
    cos, sin = rotary
    place = {
        "positions": cache.positions,
        "page_starts": cache.page_starts,
        "page_indices": cache.page_indices,
    }
    layer = dict(zip(cache.layout.named_tensors, pages, strict=True))
    return {"qkv": qkv, "cos": cos, "sin": sin, **place, **layer}


@functools.cache
def append_definition(op: AppendSignature) -> tirx.PrimFunc:
    """Return the definition."""
    kv_heads, head_dim, storage = op.kv_heads, op.head_dim, op.storage
    heads, width, half = op.heads, op.width, head_dim // 2
    (m,), has_scales, page_size = _extents(op, "positions"), op.has_scales, op.page_size
    qmax = QMAX["int8"]  # integers have scales, floats have none

    def quantized(value: tirx.Expr, absmax: tirx.Expr) -> tirx.Expr:
        if not has_scales:
            return T.Cast(storage, value)
        return T.Cast(storage, T.nearbyint(value * inverse_scale(absmax, qmax)))

    @T.prim_func(private=True, s_tir=True)
    def reference(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        positions_handle: T.handle,
        page_starts_handle: T.handle,
        page_indices_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
    ) -> None:
        num_blocks, pages = T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (m, width, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (m, half), "float32")
        sin = T.match_buffer(sin_handle, (m, half), "float32")
        positions = T.match_buffer(positions_handle, (m,), "int32")
        page_starts = T.match_buffer(page_starts_handle, (m,), "int32")
        page_indices = T.match_buffer(page_indices_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, page_size), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, page_size, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, page_size), "float32")
        for i, g in T.grid(m, kv_heads):
            with T.sblock("append"):
                vector = T.sblock_alloc_buffer((2, head_dim), "float32")
                absmax = T.sblock_alloc_buffer((2,), "float32")
                position: T.let = T.Cast("int64", positions[i])
                page: T.let = T.Cast(
                    "int64", page_indices[page_starts[i] + positions[i] // page_size]
                )
                slot: T.let = position % page_size
                for d in range(head_dim):
                    vector[0, d] = rotated(qkv, (i, heads + g), d, cos, sin)
                    vector[1, d] = qkv[i, heads + kv_heads + g, d]
                if has_scales:
                    for part in range(2):
                        absmax[part] = T.float32(0)
                        for d in range(head_dim):
                            absmax[part] = T.max(absmax[part], T.abs(vector[part, d]))
                        scales[page, g, part, slot] = absmax[part] / T.float32(qmax)
                for d in range(head_dim):
                    keys[page, g, d, slot] = quantized(vector[0, d], absmax[0])
                    values[page, g, slot, d] = quantized(vector[1, d], absmax[1])

    return mark(keep_parameters(reference, op), op)


@functools.cache
def attention_definition(op: CachedAttentionSignature) -> tirx.PrimFunc:
    """Return the definition."""
    kv_heads, head_dim, storage = op.kv_heads, op.head_dim, op.storage
    heads, width, half = op.heads, op.width, head_dim // 2
    group, page_size = heads // kv_heads, op.page_size
    (m,), has_scales = _extents(op, "positions"), op.has_scales
    (edges,) = _extents(op, "runs")

    @T.prim_func(private=True, s_tir=True)
    def reference(
        qkv_handle: T.handle,
        cos_handle: T.handle,
        sin_handle: T.handle,
        positions_handle: T.handle,
        page_starts_handle: T.handle,
        runs_handle: T.handle,
        page_indices_handle: T.handle,
        keys_handle: T.handle,
        values_handle: T.handle,
        scales_handle: T.handle,
        out_handle: T.handle,
    ) -> None:
        num_blocks, pages = T.int64(), T.int64()
        qkv = T.match_buffer(qkv_handle, (m, width, head_dim), "float32")
        cos = T.match_buffer(cos_handle, (m, half), "float32")
        sin = T.match_buffer(sin_handle, (m, half), "float32")
        positions = T.match_buffer(positions_handle, (m,), "int32")
        page_starts = T.match_buffer(page_starts_handle, (m,), "int32")
        # Kernels read it; a row's own position says all that the definition needs.
        runs = T.match_buffer(runs_handle, (edges,), "int32")  # noqa: F841
        page_indices = T.match_buffer(page_indices_handle, (num_blocks,), "int32")
        keys = T.match_buffer(keys_handle, (pages, kv_heads, head_dim, page_size), storage)
        values = T.match_buffer(values_handle, (pages, kv_heads, page_size, head_dim), storage)
        scales = T.match_buffer(scales_handle, (pages, kv_heads, 2, page_size), "float32")
        out = T.match_buffer(out_handle, (m, heads, head_dim), "float32")
        for i, h in T.grid(m, heads):
            with T.sblock("attend"):
                scores = T.sblock_alloc_buffer((num_blocks * page_size,), "float32")
                row_max = T.sblock_alloc_buffer((1,), "float32")
                row_sum = T.sblock_alloc_buffer((1,), "float32")
                kv_len = T.meta_var(T.Cast("int64", positions[i]) + 1)
                row_max[0] = T.min_value("float32")
                for j in range(kv_len):
                    page: T.let = _page_of(page_starts, page_indices, i, j // page_size)
                    scores[j] = T.float32(0)
                    for d in range(head_dim):
                        scores[j] += rotated(qkv, (i, h), d, cos, sin) * T.Cast(
                            "float32", keys[page, h // group, d, j % page_size]
                        )
                    scores[j] *= T.float32(head_dim**-0.5)
                    if has_scales:
                        scores[j] *= scales[page, h // group, 0, j % page_size]
                    row_max[0] = T.max(row_max[0], scores[j])
                row_sum[0] = T.float32(0)
                for d in range(head_dim):
                    out[i, h, d] = T.float32(0)
                for j in range(kv_len):
                    value_page: T.let = _page_of(page_starts, page_indices, i, j // page_size)
                    scores[j] = T.exp(scores[j] - row_max[0])
                    row_sum[0] += scores[j]
                    if has_scales:
                        scores[j] *= scales[value_page, h // group, 1, j % page_size]
                    for d in range(head_dim):
                        out[i, h, d] += scores[j] * T.Cast(
                            "float32", values[value_page, h // group, j % page_size, d]
                        )
                for d in range(head_dim):
                    out[i, h, d] = out[i, h, d] / row_sum[0]

    return mark(keep_parameters(reference, op), op)


def _page_of(
    page_starts: tirx.Buffer, page_indices: tirx.Buffer, row: tirx.Expr, block: tirx.Expr
) -> tirx.Expr:
    """Return the page of a block of a row's sequence."""
    return T.Cast("int64", page_indices[T.Cast("int64", page_starts[row]) + block])


def _extents(op: CacheOperation, name: str) -> tuple[int | tirx.Var, ...]:
    """Return a parameter's extents: numbers, or variables of the definition's own."""
    shape = next(each.shape for each in op.parameters if each.name == name)
    return tuple(tirx.Var(at, "int64") if isinstance(at, str) else at for at in shape)
