"""Attention, with and without the KV cache, and appending to it (see `models.cache_layout`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from mvlm.schedules.oracles import arithmetic
from mvlm.schedules.oracles.numbers import random_array, unwritten
from mvlm.schedules.signature import cache_types, extents, parameter_types

Array = npt.NDArray[Any]
# Of float32 sums of some hundred products near one, and of the exponential.
_TOLERANCE = 5e-6


def attention_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``attention``."""
    types = parameter_types(definition)
    qkv, heads = random_array(types[0], random), int(definition.attrs["mvlm.heads"])

    def expect() -> Any:
        return {1: (arithmetic.attention(qkv, heads), _TOLERANCE)}

    return [qkv, unwritten(types[1])], expect


def cached_attention_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``cached_attention``: the last positions of a full cache."""
    cache = _Cache.random(definition, random)
    arguments = [*cache.arguments, unwritten(parameter_types(definition)[-1])]

    def expect() -> Any:
        heads = cache_types(definition).heads
        queries = arithmetic.rotate(cache.arguments[0][:, :heads], cache.positions)
        keys, values = cache.stored()
        return {
            len(arguments) - 1: (arithmetic.causal_attention(queries, keys, values), _TOLERANCE)
        }

    return arguments, expect


def append_case(
    definition: tirx.PrimFunc, random: np.random.Generator
) -> tuple[list[Array], Callable[[], Any]]:
    """Make a test case of ``append_to_cache``: what the new positions hold afterwards.

    An integer may be off by one: a value's last bit may turn a tie of rounding over.
    """
    types, cache = cache_types(definition), _Cache.random(definition, random)

    def expect() -> Any:
        qkv, pages = cache.arguments[0], cache.arguments[4][cache.positions // types.page_size]
        keys, values, *scales = (pool.copy() for pool in cache.arguments[5:])
        heads, kv_heads = types.heads, types.kv_heads
        new = arithmetic.rotate(qkv[:, heads : heads + kv_heads], cache.positions)
        slots = cache.positions % types.page_size
        for part, vectors in enumerate((new, qkv[:, heads + kv_heads :])):
            stored = vectors
            if types.has_scales:
                stored, of_vectors = arithmetic.int8_vectors(vectors)
                scales[0][pages, :, part, slots] = of_vectors
            if part == 0:
                keys[pages, :, :, slots] = stored
            else:
                values[pages, :, slots] = stored
        step = {"int8": 1.0, "float16": 2.0**-10, "float32": 0.0}[types.storage]
        off = step if types.storage == "int8" else step * 8 + _TOLERANCE
        expected = {5: (keys, off), 6: (values, off)}
        return expected | {7 + i: (each, _TOLERANCE) for i, each in enumerate(scales)}

    return list(cache.arguments), expect


@dataclass(frozen=True)
class _Cache:
    """A cache, and new positions at its end: what both operations take."""

    arguments: tuple[Array, ...]
    positions: Array

    @classmethod
    def random(cls, definition: tirx.PrimFunc, random: np.random.Generator) -> _Cache:
        types, buffers = cache_types(definition), parameter_types(definition)
        qkv = random_array(buffers[0], random)
        rows, num_blocks, half = len(qkv), int(buffers[4].shape[0]), types.head_dim // 2
        positions = num_blocks * types.page_size - rows + np.arange(rows)
        angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)
        table = random.permutation(int(buffers[5].shape[0]))[:num_blocks].astype(np.int32)
        keys, values = (random_array(each, random) for each in buffers[5:7])
        scales = [
            random.uniform(0.005, 0.01, extents(each)).astype(np.float32)
            for each in buffers[7 : 8 if types.has_scales else 7]
        ]
        return cls(
            (
                qkv,
                np.cos(angles).astype(np.float32),
                np.sin(angles).astype(np.float32),
                positions[:1].astype(np.int32),
                table,
                keys,
                values,
                *scales,
            ),
            positions,
        )

    def stored(self) -> tuple[Array, Array]:
        """Return keys and values of all positions, ``(n, kv_heads, head_dim)``."""
        table, *pools = self.arguments[4:]
        keys, values, *scales = (pool[table].astype(np.float64) for pool in pools)
        keys = np.moveaxis(keys, 3, 1)
        values = np.moveaxis(values, 2, 1)
        for each in scales:
            keys *= np.moveaxis(each[:, :, 0], 2, 1)[..., None]
            values *= np.moveaxis(each[:, :, 1], 2, 1)[..., None]
        both = (each.reshape(-1, *each.shape[2:]) for each in (keys, values))
        stored_keys, stored_values = both
        return stored_keys, stored_values
