"""Symmetric quantization of float32 vectors, by their largest magnitude."""

from __future__ import annotations

from tvm import tirx

from mvlm.models.quantization import MIN_ABSMAX


def inverse_scale(absmax: tirx.Expr, qmax: int) -> tirx.Expr:
    """Return the inverse scale of a float32 vector whose largest magnitude is `absmax`.

    Args:
        absmax: The largest magnitude.
        qmax: The largest integer (see :data:`mvlm.models.quantization.QMAX`).
    """
    return tirx.if_then_else(absmax < MIN_ABSMAX, tirx.const(0, "float32"), float(qmax) / absmax)
