"""How float32 vectors become 8-bit integers, as `models.ops.int8` defines it."""

from __future__ import annotations

from tvm import tirx

LARGEST_INT8 = 127
# Below this a vector counts as zeros: 127 divided by its extreme would be infinite.
_LEAST_EXTREME = 1e-30


def inverse_scale(extreme: tirx.Expr) -> tirx.Expr:
    """Return what to multiply a float32 vector with, whose largest magnitude is `extreme`."""
    return tirx.if_then_else(
        extreme < _LEAST_EXTREME, tirx.const(0, "float32"), float(LARGEST_INT8) / extreme
    )
