"""How much a linear layer's outputs change when its matrix is rounded, by schemes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import PLAN_SCHEMES, Scheme, dequantize, find_scheme, quantize

Float32Array = npt.NDArray[np.float32]

# Rows of a matrix that are rounded at once: rounding takes several times their memory.
_ROWS = 1024
# Outputs of a layer that the errors of schemes are compared by.
_OUTPUTS = 256


def rounded(matrix: Float32Array, scheme: Scheme) -> Float32Array:
    """Return what a scheme makes of a matrix ``(N, K)``."""
    blocks = (matrix[start : start + _ROWS] for start in range(0, len(matrix), _ROWS))
    return np.concatenate(
        [
            dequantize(quantize(each, scheme.weights, scheme.rounding), scheme.weights)
            for each in blocks
        ]
    )


def output_errors(matrix: Float32Array, inputs: Float32Array) -> dict[str, float]:
    """Return the mean square of the change of outputs, relative to the outputs' own, by scheme.

    Args:
        matrix: ``(N, K)``; some of its rows are looked at.
        inputs: ``(n, K)``.
    """
    some = np.ascontiguousarray(matrix[:: -(-len(matrix) // _OUTPUTS)])
    whole = float(np.square(inputs @ some.T, dtype=np.float64).sum())
    errors = {}
    for name in PLAN_SCHEMES:
        change = inputs @ (some - rounded(some, find_scheme(name))).T
        error = float(np.square(change, dtype=np.float64).sum())
        errors[name] = error / whole if whole > 0 else 0.0
    return errors
