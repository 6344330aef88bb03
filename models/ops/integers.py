"""How float32 vectors become integers: by their largest magnitude."""

from __future__ import annotations

from tvm import tirx

LARGEST_INT8 = 127
# 13 bits, so that 32 products of two such add up within 32.
LARGEST_INT16 = 8191
LARGEST = {"int8": LARGEST_INT8, "int16": LARGEST_INT16}
# Below this a vector counts as zeros: the largest integer divided by its extreme would be infinite.
_MIN_EXTREME = 1e-30


def inverse_scale(extreme: tirx.Expr, largest: int = LARGEST_INT8) -> tirx.Expr:
    """Return what to multiply a float32 vector with, whose largest magnitude is `extreme`."""
    return tirx.if_then_else(
        extreme < _MIN_EXTREME, tirx.const(0, "float32"), float(largest) / extreme
    )
