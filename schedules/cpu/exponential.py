"""The exponential and what is made of it, as polynomials that LLVM vectorizes.

It would call libm once an element. Products and sums are joined here, and not by LLVM, which joins
them or not by what is around them: a value's bits shall be the same in every kernel.
"""

from __future__ import annotations

from math import e, log2

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
_INFINITE_EXPONENT = 128
LOG2_E = log2(e)
_ERF_P = 0.3275911
_ERF_COEFFICIENTS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def exp2(x: tirx.Expr) -> tirx.Expr:
    """Return 2^x of a float32 up to 128, within 2e-7 of its value; infinity from 127.5.

    The whole part of x goes into the exponent's bits and the rest through the polynomial. Below
    -126, where float32 would lose digits, it is zero, minus infinity included.
    """
    whole = T.nearbyint(T.max(x, T.float32(_LEAST_EXPONENT)))
    rest = T.max(x, T.float32(_LEAST_EXPONENT)) - whole
    power = T.float32(_COEFFICIENTS[-1])
    for coefficient in reversed(_COEFFICIENTS[:-1]):
        power = T.fma(power, rest, T.float32(coefficient))
    exponent = T.Cast("int32", whole) + T.int32(_EXPONENT_BIAS)
    scale = T.reinterpret("float32", T.shift_left(exponent, T.int32(_FRACTION_BITS)))
    return T.Select(x < T.float32(_LEAST_EXPONENT), T.float32(0), power * scale)


def sigmoid(x: tirx.Expr) -> tirx.Expr:
    """Return 1 / (1 + e^-x) of a float32, within 4e-7 of its value down to -88; 0 below."""
    power = T.min(x * T.float32(-LOG2_E), T.float32(_INFINITE_EXPONENT))
    return T.float32(1) / (T.float32(1) + exp2(power))


def erf(x: tirx.Expr) -> tirx.Expr:
    """Return the error function of a float32, within 2e-7.

    The rational approximation 7.1.26 of Abramowitz and Stegun, which is within 1.5e-7.
    """
    size = T.abs(x)
    t = T.float32(1) / T.fma(T.float32(_ERF_P), size, T.float32(1))
    power = T.float32(_ERF_COEFFICIENTS[-1])
    for coefficient in reversed(_ERF_COEFFICIENTS[:-1]):
        power = T.fma(power, t, T.float32(coefficient))
    value = T.fma(-power * t, exp2(size * size * T.float32(-LOG2_E)), T.float32(1))
    return T.Select(x < T.float32(0), -value, value)
