"""The exponential as a polynomial: LLVM vectorizes it, where it would call libm once an element."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from tvm import tirx
from tvm.script import tirx as T

# 2^f for f in -1/2 to 1/2, to 1e-8 of its value: an eighth of float32's spacing.
_DEGREE = 6
_COEFFICIENTS = tuple(
    float(value)
    for value in Chebyshev.interpolate(np.exp2, _DEGREE, domain=[-0.5, 0.5])
    .convert(kind=Polynomial)
    .coef
)
_LEAST_EXPONENT = -126
_EXPONENT_BIAS = 127
_FRACTION_BITS = 23


def exp2(x: tirx.Expr) -> tirx.Expr:
    """Return 2^x of a float32 up to 127, within 2e-7 of its value.

    The whole part of x goes into the exponent's bits and the rest through the polynomial. Below
    -126, where float32 would lose digits, it is zero, minus infinity included.
    """
    whole = T.nearbyint(T.max(x, T.float32(_LEAST_EXPONENT)))
    rest = T.max(x, T.float32(_LEAST_EXPONENT)) - whole
    power = T.float32(_COEFFICIENTS[-1])
    for coefficient in reversed(_COEFFICIENTS[:-1]):
        power = power * rest + T.float32(coefficient)
    exponent = T.Cast("int32", whole) + T.int32(_EXPONENT_BIAS)
    scale = T.reinterpret("float32", T.shift_left(exponent, T.int32(_FRACTION_BITS)))
    return T.Select(x < T.float32(_LEAST_EXPONENT), T.float32(0), power * scale)
