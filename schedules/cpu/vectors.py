"""What a CPU does at once: features and widths of vectors, register tiles, prefetched lines."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

# Floats: one AVX-512 register, two of AVX2, four of Armv8.
_WIDEST = 16
# Rows of a register tile of floats, as far as kernels support them.
TILE_M_VALUES = (1, 2, 3, 4, 6, 8, 10, 12, 16)

# Rows of a register tile of attention's queries.
QUERY_TILE_M_VALUES = (2, 3, 4, 6, 8, 10, 12, 16)

LINE_BYTES = 64
# Arguments of llvm.prefetch: read; into L2, which has twice as many outstanding lines as L1; data.
_READ, _L2, _DATA = 0, 2, 1


def cpu_features(target: Target) -> frozenset[str]:
    """Return the features that code for `target` may use, by LLVM's names: ``+avx2``."""
    return frozenset(str(feature) for feature in target.attrs.get("mattr", ()))


def lanes(extent: int) -> int:
    """Return the widest power of two that divides `extent`, at most one wide vector."""
    width = _WIDEST
    while extent % width:
        width //= 2
    return width


def tile_width(extent: int, most: int) -> int:
    """Return the width of a register tile: whole vectors, a divisor of `extent`, at most `most`."""
    vector = lanes(extent)
    return max(
        width for width in range(vector, max(most, vector) + 1, vector) if extent % width == 0
    )


def default_tile_m(target: Target) -> int:
    """Return the rows of a tile of 16 columns that fit into a CPU's vector registers.

    AVX-512 has 32 registers of 16 floats. AVX2 has 16 of 8, of which a row takes two, and Armv8 32
    of 4, of which it takes four; some are left for loaded operands.
    """
    return 12 if "+avx512f" in cpu_features(target) else 6


def prefetch_line(element: Any) -> tirx.Expr:
    """Prefetch the cache line of a buffer's element."""
    return T.call_llvm_intrin(
        "void",
        "llvm.prefetch",
        T.address_of(element),
        T.int32(_READ),
        T.int32(_L2),
        T.int32(_DATA),
    )
