"""Symmetric quantization of float32 vectors, by their largest magnitude."""

from __future__ import annotations

from tvm import tirx

QMAX_INT8 = 127
# 13 bits, so that 32 products of two such add up within 32.
QMAX_INT16 = 8191
QMAX = {"int8": QMAX_INT8, "int16": QMAX_INT16}
# Below this a vector is quantized to zeros: qmax divided by its absmax would be infinite.
_MIN_ABSMAX = 1e-30


def inverse_scale(absmax: tirx.Expr, qmax: int = QMAX_INT8) -> tirx.Expr:
    """Return the inverse scale of a float32 vector whose largest magnitude is `absmax`."""
    return tirx.if_then_else(absmax < _MIN_ABSMAX, tirx.const(0, "float32"), float(qmax) / absmax)
