"""Tables of levels in a register, and the indices that byte shuffles take of nibbles."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.quantization import TABLE_LEVELS

NIBBLE = 15


def table_register(levels: tirx.Expr, count: int, zero_point: int) -> tirx.Expr:
    """Return a register of a panel's levels as bytes, repeated as often as they fit.

    Args:
        levels: int8, 16.
        count: Bytes of the register.
        zero_point: What is added to each.
    """
    table = T.reinterpret(f"uint8x{TABLE_LEVELS}", levels)
    if zero_point:
        table = table + T.broadcast(T.uint8(zero_point), TABLE_LEVELS)
    times = count // TABLE_LEVELS
    return tirx.Shuffle([table] * times, list(range(count))) if times > 1 else table


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


def shuffle_indices(bits: int, stored: tirx.Expr, count: int, is_high: bool) -> tirx.Expr:
    """Return what x86's ``pshufb`` takes: it ignores bits 4 to 6, and makes zero if bit 7 is set.

    A table of 8 levels is repeated, so that of an index bit 3 is ignored as well. Both nibbles of
    such bytes have that bit cleared by one instruction.
    """
    if bits == 3:
        cleared = nibbles(stored, count, is_high=False, mask=0x77)
        return shifted_words(cleared, count) if is_high else cleared
    shifted = shifted_words(stored, count) if is_high else stored
    return nibbles(shifted, count, is_high=False)


def selected(
    table: tirx.Expr, bits: int, stored: tirx.Expr, count: int, is_high: bool
) -> tirx.Expr:
    """Return levels by comparisons, for CPUs without a byte shuffle.

    Args:
        table: ``count`` uint8.
        bits: Of an index: 3 or 4.
        stored: ``count`` uint8.
        count: How many.
        is_high: Which nibbles of `stored` the indices are.
    """
    index = nibbles(stored, count, is_high, (1 << bits) - 1)
    found = tirx.Shuffle([table], [0] * count)
    for at in range(1, 1 << bits):
        is_here = index == T.broadcast(T.uint8(at), count)
        found = tirx.Select(is_here, tirx.Shuffle([table], [at] * count), found)
    return found
