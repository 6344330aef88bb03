"""The CPU kernels of the KV cache, against NumPy: appending, and attention."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from mvlm.models.cache_layout import PAGE_SIZE, CacheLayout
from mvlm.models.ops.kv_cache import append_definition, attention_definition
from mvlm.models.ops.signatures import FEW, AppendSignature, CachedAttentionSignature, RowCount
from mvlm.models.quantization import CACHE_STORAGES
from mvlm.schedules.oracles.arithmetic import causal_attention, int8_vectors, rotate
from tests.device import cached
from tests.kernels import Array, build, kernel

# float32 rounds sums of some hundred products near one; the integers of two roundings may differ
# where a value lies just between two, which the comparison with dequantized values allows for.
TOLERANCE = 5e-6
Kind = Callable[[tirx.PrimFunc], tirx.PrimFunc]


def as_defined(function: tirx.PrimFunc) -> tirx.PrimFunc:
    return function


@cached
def functions(
    kind: Kind, rows: RowCount, heads: int, layout: CacheLayout
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Compile what appends and what attends."""
    append = append_definition(AppendSignature.for_cache(layout, rows, heads))
    attend = attention_definition(CachedAttentionSignature.for_cache(layout, rows, heads))
    return build(kind(append)), build(kind(attend))


@dataclass
class Sequence:
    """One layer's cache of one sequence, whose pages lie in any order among others.

    What no position has been written to is NaN, or 77 where it is an integer.
    """

    layout: CacheLayout
    heads: int
    capacity: int
    seed: int = 0
    kind: Kind = kernel

    def __post_init__(self) -> None:
        pages = -(-self.capacity // PAGE_SIZE) + 2
        order = np.random.default_rng(self.seed).permutation(pages)
        self.table = order[:-2].astype(np.int32)
        self.pages = [
            tvm.runtime.tensor(
                np.full(
                    (pages, *tensor.shape), 77 if tensor.dtype == "int8" else np.nan, tensor.dtype
                )
            )
            for tensor in self.layout.tensors
        ]
        self.length = 0

    def extend(self, qkv: Array) -> Array:
        """Append the new positions' keys and values, and let them attend."""
        (found,) = extend([self], [qkv], 1 if len(qkv) == 1 else None)
        return found

    def stored(self) -> tuple[Array, Array]:
        """Keys and values of all positions, ``(n, kv_heads, head_dim)``."""
        keys, values, *scales = (page.numpy()[self.table] for page in self.pages)
        keys = np.moveaxis(keys.astype(np.float32), 3, 1)
        values = np.moveaxis(values.astype(np.float32), 2, 1)
        if self.layout.has_scales:
            keys *= np.moveaxis(scales[0][:, :, 0], 2, 1)[..., None]
            values *= np.moveaxis(scales[0][:, :, 1], 2, 1)[..., None]
        width = self.layout.head_dim
        flat = (each.reshape(-1, self.layout.kv_heads, width) for each in (keys, values))
        stored_keys, stored_values = (each[: self.length] for each in flat)
        return stored_keys, stored_values


def of_one_cache(sequence: Sequence, blocks: list[int]) -> list[Sequence]:
    """Share a sequence's pages out among some, in the order of its table."""
    found = []
    for begin, end in itertools.pairwise(itertools.accumulate(blocks, initial=0)):
        found.append(copy.copy(sequence))
        found[-1].table = sequence.table[begin:end]
    return found


def extend(sequences: list[Sequence], parts: list[Array], rows: RowCount) -> list[Array]:
    """Extend sequences of one cache by a call, by functions for so many rows."""
    first, qkv = sequences[0], np.concatenate(parts)
    half = first.layout.head_dim // 2
    positions = np.concatenate(
        [each.length + np.arange(len(part)) for each, part in zip(sequences, parts, strict=True)]
    )
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)
    counts, blocks = (
        [len(each) for each in all_] for all_ in (parts, [s.table for s in sequences])
    )
    starts, edges = (np.cumsum([0, *sizes]) for sizes in (blocks, counts))
    *places, runs, table = (
        tvm.runtime.tensor(np.ascontiguousarray(array))
        for array in (
            qkv,
            np.cos(angles).astype(np.float32),
            np.sin(angles).astype(np.float32),
            positions.astype(np.int32),
            np.repeat(starts[:-1], counts).astype(np.int32),
            edges.astype(np.int32),
            np.concatenate([each.table for each in sequences]),
        )
    )
    append, attend = functions(first.kind, rows, first.heads, first.layout)
    out = tvm.runtime.tensor(np.full((len(qkv), first.heads, 2 * half), np.nan, np.float32))
    append(*places, table, *first.pages)
    attend(*places, runs, table, *first.pages, out)
    for each, count in zip(sequences, counts, strict=True):
        each.length += count
    return np.split(out.numpy(), edges[1:-1])


def check(sequence: Sequence, steps: list[int], scale: float = 1.0, seed: int = 0) -> None:
    """Extend a sequence by some steps, each held against NumPy over what the cache then holds."""
    layout, heads = sequence.layout, sequence.heads
    random, seen = np.random.default_rng(seed), []
    for step in steps:
        qkv = random_vectors(sequence, step, random)
        qkv[:, heads + layout.kv_heads :] *= scale
        positions = sequence.length + np.arange(step)
        seen.append(
            (rotate(qkv[:, heads : -layout.kv_heads], positions), qkv[:, -layout.kv_heads :])
        )
        found = sequence.extend(qkv)
        keys, values = sequence.stored()
        exact = [np.concatenate(parts) for parts in zip(*seen, strict=True)]
        for stored, vectors in zip((keys, values), exact, strict=True):
            check_stored(layout.storage, stored, vectors)
        expected = causal_attention(rotate(qkv[:, :heads], positions), keys, values)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE * scale)


def random_vectors(sequence: Sequence, count: int, random: np.random.Generator) -> Array:
    """Queries, keys and values of new positions."""
    width = sequence.heads + 2 * sequence.layout.kv_heads
    shape = count, width, sequence.layout.head_dim
    return random.standard_normal(shape).astype(np.float32)


def check_stored(storage: str, stored: Array, vectors: Array) -> None:
    """Hold stored vectors against exact ones: half a step of the storage, and float32's."""
    extreme = np.abs(vectors).max(-1, keepdims=True) + 1e-30
    step = {"float32": 0.0, "float16": 2.0**-11, "int8": 0.5 / 127}[storage]
    assert (np.abs(stored - vectors) / extreme).max() <= step + 1e-6


@pytest.mark.parametrize("kind", [kernel, as_defined])
@pytest.mark.parametrize("storage", CACHE_STORAGES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"),
    [
        (4, 2, 80),
        (1, 1, 6),
        pytest.param(2, 2, 128, marks=pytest.mark.extended),
        pytest.param(3, 1, 64, marks=pytest.mark.extended),
    ],
)
def test_prompts_and_tokens(
    kind: Kind, storage: str, heads: int, kv_heads: int, head_dim: int
) -> None:
    """Within a page, over a page's end, one by one, and many pages at once."""
    sequence = Sequence(CacheLayout(1, kv_heads, head_dim, storage), heads, 400, kind=kind)
    check(sequence, [5, 1, 58, 1, 1, 3, 200, 1])


@pytest.mark.parametrize("kind", [kernel, as_defined])
@pytest.mark.parametrize("storage", CACHE_STORAGES)
@pytest.mark.parametrize("rows", [None, FEW])
def test_sequences_in_one_call(kind: Kind, storage: str, rows: RowCount) -> None:
    """Chunks and tokens, in pages of one cache: as if each sequence were alone."""
    layout, heads = CacheLayout(1, 2, 48, storage), 4
    sequences = of_one_cache(Sequence(layout, heads, 6 * PAGE_SIZE, kind=kind), [1, 3, 2])
    # The same pages in memory of their own.
    alone = [copy.copy(each) for each in sequences]
    for each in alone:
        each.pages = [tvm.runtime.tensor(page.numpy()) for page in each.pages]
    random = np.random.default_rng(5)
    for each, other, count in zip(sequences, alone, (40, 126, 63), strict=True):
        qkv = random_vectors(each, count, random)
        np.testing.assert_array_equal(each.extend(qkv), other.extend(qkv))
    # The rows of each in a call; some are not in it.
    for counts in ([5, 7, 1], [1, 1, 1], [0, 3, 10], [1, 0, 0], [2, 0, 1]):
        in_call = [at for at, count in enumerate(counts) if count]
        parts = [random_vectors(sequences[at], counts[at], random) for at in in_call]
        found = extend([sequences[at] for at in in_call], parts, rows)
        for at, part, result in zip(in_call, parts, found, strict=True):
            one, positions = sequences[at], alone[at].length + np.arange(len(part))
            expected = alone[at].extend(part)
            keys, values = one.stored()
            for stored, other in zip((keys, values), alone[at].stored(), strict=True):
                np.testing.assert_array_equal(stored, other)
            if kind is kernel:  # whose bits are those of the kernel of one row, too
                np.testing.assert_array_equal(result, expected)
            by_numpy = causal_attention(rotate(part[:, :heads], positions), keys, values)
            np.testing.assert_allclose(result, by_numpy, atol=TOLERANCE)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    half=st.integers(1, 40),
    steps=st.lists(st.integers(1, 140), min_size=1, max_size=4),
    storage=st.sampled_from(CACHE_STORAGES),
    seed=st.integers(0, 99),
)
def test_random_shapes(
    kv_heads: int, group: int, half: int, steps: list[int], storage: str, seed: int
) -> None:
    layout = CacheLayout(1, kv_heads, 2 * half, storage)
    check(Sequence(layout, kv_heads * group, sum(steps), seed), steps, seed=seed)


@pytest.mark.parametrize("storage", ["float32", "int8"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_tiny_and_huge_values(storage: str, scale: float) -> None:
    check(Sequence(CacheLayout(1, 2, 32, storage), 2, 80), [70, 1], scale)


@pytest.mark.parametrize("storage", CACHE_STORAGES)
def test_vectors_of_zeros(storage: str) -> None:
    sequence = Sequence(CacheLayout(1, 1, 16, storage), 1, 70)
    for rows in (66, 1):
        found = sequence.extend(np.zeros((rows, 3, 16), np.float32))
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [80.0, 1e4, 1e30])
def test_large_scores_do_not_overflow(sign: int, size: float) -> None:
    """Scores of +-size: exp of them is beyond float32, of their differences it is not."""
    head_dim, count = 16, 70
    qkv = np.zeros((count, 3, head_dim), np.float32)
    qkv[:, 0, 15] = sign * size  # of the slowest pair, that hardly turns
    qkv[:, 1, 15] = np.linspace(-1, 1, count)
    qkv[:, 2] = np.random.default_rng(0).standard_normal((count, head_dim))
    sequence = Sequence(CacheLayout(1, 1, head_dim, "float32"), 1, count)
    found = sequence.extend(qkv)
    assert np.isfinite(found).all()
    queries = rotate(qkv[:, :1], np.arange(count))
    expected = causal_attention(queries, *sequence.stored())
    # Scores near 80 are rounded to 80 * 2^-24, and that is the error of each weight.
    np.testing.assert_allclose(found, expected, atol=5e-5)


def test_int8_is_rounded_as_documented() -> None:
    layout = CacheLayout(1, 2, 32, "int8")
    sequence = Sequence(layout, 2, 64)
    qkv = np.random.default_rng(3).standard_normal((40, 6, 32)).astype(np.float32)
    sequence.extend(qkv)
    integers, scales = int8_vectors(qkv[:, 4:])  # values, which are not rotated
    _, values, held = (page.numpy()[sequence.table[0]] for page in sequence.pages)
    np.testing.assert_array_equal(np.moveaxis(values, 1, 0)[:40], integers)
    np.testing.assert_allclose(held[:, 1, :40].T, scales, rtol=2e-7)
    assert np.abs(values[:, :40]).max() == 127


def test_other_pages_are_left_alone() -> None:
    sequence = Sequence(CacheLayout(1, 1, 8, "float32"), 1, 100)
    before = [page.numpy().copy() for page in sequence.pages]
    sequence.extend(np.ones((3, 3, 8), np.float32))
    for page, old in zip(sequence.pages, before, strict=True):
        changed = page.numpy()
        others = np.setdiff1d(np.arange(len(old)), sequence.table[:1])
        np.testing.assert_array_equal(changed[others], old[others])
    keys = sequence.pages[0].numpy()[sequence.table[0]]
    assert np.isnan(keys[..., 3:]).all() and np.isfinite(keys[..., :3]).all()
