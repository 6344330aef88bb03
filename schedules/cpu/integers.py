"""Symmetric quantization of float32 vectors, as `models.ops.integers` defines it."""

from __future__ import annotations

from tvm import tirx

QMAX_INT8 = 127
QMAX = {"int8": QMAX_INT8, "int16": 8191}
# Below this a vector is quantized to zeros: qmax divided by its absmax would be infinite.
_MIN_ABSMAX = 1e-30


def inverse_scale(absmax: tirx.Expr, qmax: int = QMAX_INT8) -> tirx.Expr:
    """Return the inverse scale of a float32 vector whose largest magnitude is `absmax`."""
    return tirx.if_then_else(absmax < _MIN_ABSMAX, tirx.const(0, "float32"), float(qmax) / absmax)
