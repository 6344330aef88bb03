"""Attention, with and without the KV cache, and appending to it (see `models.cache_layout`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.kv_cache import RUN_EDGES
from mvlm.models.ops.signatures import (
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    CacheOperation,
)
from mvlm.schedules.oracles import arithmetic
from mvlm.schedules.oracles.numbers import random_arguments, random_array

Array = npt.NDArray[Any]
# Of float32 sums of some hundred products near one, and of the exponential.
_TOLERANCE = 5e-6


def attention_case(
    op: AttentionSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``attention``."""
    arguments = random_arguments(op, extents, random)

    def expect() -> Any:
        return {"out": (arithmetic.attention(arguments["qkv"], op.heads), _TOLERANCE)}

    return arguments, expect


def cached_attention_case(
    op: CachedAttentionSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``cached_attention``: the last positions of full sequences."""
    cache = _Cache.random(op, extents, random)

    def expect() -> Any:
        queries = arithmetic.rotate(cache.arguments["qkv"][:, : op.heads], cache.positions)
        parts = [
            arithmetic.causal_attention(queries[run.rows], *cache.stored(run)) for run in cache.runs
        ]
        return {"out": (np.concatenate(parts), _TOLERANCE)}

    return cache.arguments, expect


def append_case(
    op: AppendSignature, extents: Mapping[str, int], random: np.random.Generator
) -> tuple[dict[str, Array], Callable[[], Any]]:
    """Make a test case of ``append_to_cache``: what the new positions hold afterwards.

    An integer may be off by one: a value's last bit may turn a tie of rounding over.
    """
    cache = _Cache.random(op, extents, random)

    def expect() -> Any:
        pools = {each.name: cache.arguments[each.name].copy() for each in op.pages}
        blocks = cache.arguments["page_starts"] + cache.positions // op.page_size
        pages = cache.arguments["page_indices"][blocks]
        slots = cache.positions % op.page_size
        qkv, first = cache.arguments["qkv"], op.heads + op.kv_heads
        keys = arithmetic.rotate(qkv[:, op.heads : first], cache.positions)
        for part, vectors in enumerate((keys, qkv[:, first:])):
            stored = vectors
            if op.has_scales:
                stored, scales = arithmetic.int8_vectors(vectors)
                pools["scales"][pages, :, part, slots] = scales
            if part == 0:
                pools["keys"][pages, :, :, slots] = stored
            else:
                pools["values"][pages, :, slots] = stored
        step = {"int8": 1.0, "float16": 2.0**-10, "float32": 0.0}[op.storage]
        off = step if op.storage == "int8" else step * 8 + _TOLERANCE
        allowed = {"keys": off, "values": off, "scales": _TOLERANCE}
        return {name: (pool, allowed[name]) for name, pool in pools.items()}

    return cache.arguments, expect


@dataclass(frozen=True)
class _Run:
    """The rows of one sequence, and the blocks of its pages in the list of all."""

    rows: slice
    blocks: slice


@dataclass(frozen=True)
class _Cache:
    """A cache of some sequences, and new positions at the ends: what both operations take."""

    arguments: dict[str, Array]
    positions: Array
    runs: tuple[_Run, ...]

    @classmethod
    def random(
        cls, op: CacheOperation, extents: Mapping[str, int], random: np.random.Generator
    ) -> _Cache:
        arguments, half = random_arguments(op, extents, random), op.head_dim // 2
        rows, num_blocks = len(arguments["qkv"]), len(arguments["page_indices"])
        for each in op.pages:  # which appending changes in place: they are filled already
            shape = each.known_shape(extents)
            arguments[each.name] = random_array(shape, each.dtype, random)
        if op.has_scales:
            scales = random.uniform(0.005, 0.01, arguments["scales"].shape)
            arguments["scales"] = scales.astype(np.float32)
        count = 1 if isinstance(op.rows, int) else extents[RUN_EDGES] - 1
        edges, ends = (np.linspace(0, all_, count + 1).astype(int) for all_ in (rows, num_blocks))
        runs = tuple(
            _Run(slice(*edges[at : at + 2]), slice(*ends[at : at + 2])) for at in range(count)
        )
        positions, page_starts = np.empty(rows, np.int64), np.empty(rows, np.int32)
        for run in runs:
            page_starts[run.rows] = run.blocks.start
            length = (run.blocks.stop - run.blocks.start) * op.page_size
            positions[run.rows] = length - np.arange(run.rows.stop - run.rows.start, 0, -1)
        angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)
        arguments |= {
            "cos": np.cos(angles).astype(np.float32),
            "sin": np.sin(angles).astype(np.float32),
            "positions": positions.astype(np.int32),
            "page_starts": page_starts,
            "page_indices": random.permutation(len(arguments["keys"]))[:num_blocks].astype(
                np.int32
            ),
        }
        if "runs" in arguments:
            arguments["runs"] = edges.astype(np.int32)
        return cls(arguments, positions, runs)

    def stored(self, run: _Run) -> tuple[Array, Array]:
        """Return keys and values of all positions of a sequence, ``(n, kv_heads, head_dim)``."""
        table = self.arguments["page_indices"][run.blocks]
        keys = np.moveaxis(self.arguments["keys"][table].astype(np.float64), 3, 1)
        values = np.moveaxis(self.arguments["values"][table].astype(np.float64), 2, 1)
        if "scales" in self.arguments:
            scales = self.arguments["scales"][table].astype(np.float64)
            keys *= np.moveaxis(scales[:, :, 0], 2, 1)[..., None]
            values *= np.moveaxis(scales[:, :, 1], 2, 1)[..., None]
        return keys.reshape(-1, *keys.shape[2:]), values.reshape(-1, *values.shape[2:])
