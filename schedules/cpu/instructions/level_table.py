"""Tables of levels in a register, and the indices that byte shuffles take of nibbles.

A table is a constant, which LLVM keeps in a register as long as a loop runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

NIBBLE = 15
_WORD_BYTES = 8


def level_table(levels: Sequence[int], count: int, zero_point: int) -> tirx.Expr:
    """Return a register of levels as bytes, repeated as often as they fit.

    Args:
        levels: 8 or 16.
        count: Bytes of the register.
        zero_point: What is added to each.
    """
    stored = bytes((level + zero_point) % 256 for level in levels)
    words = [
        int.from_bytes(stored[first : first + _WORD_BYTES], "little", signed=True)
        for first in range(0, len(stored), _WORD_BYTES)
    ]
    repeated = words * (count // len(stored))
    table = tirx.Shuffle([T.int64(word) for word in repeated], list(range(len(repeated))))
    return T.reinterpret(f"uint8x{count}", table)


def nibbles(stored: tirx.Expr, count: int, is_high: bool, mask: int = NIBBLE) -> tirx.Expr:
    """Return nibbles of bytes as bytes.

    Args:
        stored: ``count`` uint8.
        count: How many.
        is_high: Which nibbles.
        mask: The bits of a nibble that are kept.
    """
    if not is_high:
        return stored & T.broadcast(T.uint8(mask), count)
    shifted = stored >> T.broadcast(T.uint8(4), count)
    return shifted if mask == NIBBLE else shifted & T.broadcast(T.uint8(mask), count)


def shifted_words(stored: tirx.Expr, count: int) -> tirx.Expr:
    """Shift pairs of bytes down by a nibble: no CPU of x86 shifts single bytes.

    The lower nibbles of the result are the bytes' high ones; the high nibbles are arbitrary.
    """
    words = T.reinterpret(f"uint16x{count // 2}", stored)
    return T.reinterpret(f"uint8x{count}", words >> T.broadcast(T.uint16(4), count // 2))


def shuffle_indices(
    levels: Sequence[int], stored: tirx.Expr, count: int, is_high: bool
) -> tirx.Expr:
    """Return what x86's ``pshufb`` takes: it ignores bits 4 to 6, and makes zero if bit 7 is set.

    A table of 8 levels is repeated, so that of an index bit 3 is ignored as well. Both nibbles of
    such bytes have that bit cleared by one instruction.
    """
    if len(levels) == 8:
        cleared = nibbles(stored, count, is_high=False, mask=0x77)
        return shifted_words(cleared, count) if is_high else cleared
    shifted = shifted_words(stored, count) if is_high else stored
    return nibbles(shifted, count, is_high=False)


def selected(levels: Sequence[int], stored: tirx.Expr, count: int, is_high: bool) -> tirx.Expr:
    """Return signed levels as bytes by comparisons, for CPUs without a byte shuffle.

    Args:
        levels: 8 or 16.
        stored: ``count`` uint8.
        count: How many.
        is_high: Which nibbles of `stored` the indices are.
    """
    index = nibbles(stored, count, is_high, len(levels) - 1)
    found = T.broadcast(T.uint8(levels[0] % 256), count)
    for at, level in enumerate(levels[1:], 1):
        is_here = index == T.broadcast(T.uint8(at), count)
        found = tirx.Select(is_here, T.broadcast(T.uint8(level % 256), count), found)
    return found
