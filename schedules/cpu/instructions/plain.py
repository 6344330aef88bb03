"""Vectors of any CPU: bytes are multiplied in 16 bits, and pairs of products added in 32.

Levels are looked up by the byte shuffle that every Armv8 CPU has (``tbl``), and nearly every one of
x86 (``pshufb``); others compare indices.

Words are multiplied in 32 bits, and the products of a group added there, lane by lane; then pairs
of lanes. 16 products of 8191 and 8191 come to a half of what 32 bits hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.instructions.instruction_set import Activations, InstructionSet, StepWeights
from mvlm.schedules.cpu.instructions.level_table import (
    nibbles,
    selected,
    shuffle_indices,
)

_LANES = 4


def _dot(
    sums: tirx.Expr, step_weights: Sequence[StepWeights], activations: Activations, bits: int
) -> tirx.Expr:
    if bits == 16:
        return sums + words(step_weights, activations)
    for step, weights in step_weights:
        word = activations(step, 1)
        # 255 * 127 fits into 16 bits.
        fours = T.reinterpret("int8x16", T.broadcast(word, _LANES))
        factors = weights if bits == 8 else T.reinterpret("int8x16", weights)
        products = T.Cast("int16x16", factors) * T.Cast("int16x16", fours)
        twos = _folded(T.reinterpret("int32x8", products), 16)
        sums = sums + T.Cast("int32x4", _folded(T.reinterpret("int64x4", twos), 32))
    return sums


def words(step_weights: Sequence[StepWeights], activations: Activations) -> tirx.Expr:
    """Add the products of 16-bit integers: pairs of them into 4 sums."""
    halves = [
        sum(
            T.Cast("int32x4", _lanes(weights, half)) * T.Cast("int32x4", _lanes(pair, half))
            for weights, pair in _with_pairs(step_weights, activations)
        )
        for half in (range(4), range(4, 8))
    ]
    evens, odds = (tirx.Shuffle(halves, list(range(first, 8, 2))) for first in (0, 1))
    return evens + odds


def _with_pairs(
    step_weights: Sequence[StepWeights], activations: Activations
) -> Iterator[tuple[tirx.Expr, tirx.Expr]]:
    """Yield a step's weights, and its two activations in every lane."""
    for step, weights in step_weights:
        yield weights, T.reinterpret("int16x8", T.broadcast(activations(step, 1), _LANES))


def _lanes(vector: tirx.Expr, lanes: Iterable[int]) -> tirx.Expr:
    return tirx.Shuffle([vector], list(lanes))


def _folded(pairs: tirx.Expr, bits: int) -> tirx.Expr:
    """Add the signed lower and upper halves of every lane."""
    dtype, lanes = f"int{2 * bits}", 128 // bits
    shift = T.broadcast(T.Cast(dtype, bits), lanes)
    return (pairs << shift >> shift) + (pairs >> shift)


def neon_lookup(table: tirx.Expr, bits: int, stored: tirx.Expr, is_high: bool) -> tirx.Expr:
    """Look signed levels up: a byte shift leaves a nibble, and tables of 8 levels are repeated."""
    return T.call_llvm_pure_intrin(
        "uint8x16",
        "llvm.aarch64.neon.tbl1",
        table,
        nibbles(stored, 16, is_high),
    )


def _ssse3_lookup(table: tirx.Expr, bits: int, stored: tirx.Expr, is_high: bool) -> tirx.Expr:
    return T.call_llvm_pure_intrin(
        "uint8x16",
        "llvm.x86.ssse3.pshuf.b.128",
        table,
        shuffle_indices(bits, stored, 16, is_high),
    )


def _selecting_lookup(table: tirx.Expr, bits: int, stored: tirx.Expr, is_high: bool) -> tirx.Expr:
    return selected(table, bits, stored, 16, is_high)


INSTRUCTIONS = InstructionSet(
    name="plain vectors",
    features=(),
    lanes=_LANES,
    tile_m=4,
    dot=_dot,
    lookup=_selecting_lookup,
    signed_bits=(3, 4),
)
WITH_NEON = replace(
    INSTRUCTIONS, name="plain vectors, NEON", features=("+neon",), lookup=neon_lookup
)
WITH_SSSE3 = replace(
    INSTRUCTIONS, name="plain vectors, SSSE3", features=("+ssse3",), lookup=_ssse3_lookup
)
