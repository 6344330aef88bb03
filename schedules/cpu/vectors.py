"""How wide vectorized loops are."""

from __future__ import annotations

# Floats: one AVX-512 register, two of AVX2, four of Armv8.
_WIDEST = 16


def lanes(extent: int) -> int:
    """Return the widest power of two that divides `extent`, at most one wide vector."""
    width = _WIDEST
    while extent % width:
        width //= 2
    return width


def columns(extent: int, most: int) -> int:
    """Return how much of `extent` a register tile takes: whole vectors, `most` at the most."""
    vector = lanes(extent)
    return max(
        width for width in range(vector, max(most, vector) + 1, vector) if extent % width == 0
    )
