"""Rounding by the error in a layer's output: GPTQ (Frantar et al. 2022, arXiv 2210.17323).

A matrix W ``(N, K)`` is to be rounded to Q such that the layer's outputs change least, on the
inputs x that calibration has seen: the squared error is the sum over rows of ``e H e^T`` with
``e = w - q`` and the second moments ``H = E[x x^T]``, ``(K, K)``. Columns of W are rounded one
after the other, and the error of each is compensated by those that are still to be rounded: by how
much is in the Cholesky factor of H's inverse.

Columns with the largest inputs come first: most others are then left to make up for their errors.
The scales of all groups are chosen before (static groups), so that a column's place in the order
does not depend on its group: as without calibration, but with the squared error of each column
weighted by its inputs' mean square.

Matrices are transposed here, ``(K, N)``, so that a column of W is contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import (
    GROUP_SIZE,
    QuantizedMatrix,
    WeightFormat,
    dequantize,
    nearest_values,
    quantize,
    quantize_with_scales,
    store_scales,
)
from mvlm.models.rounding import searched_scales

Float32Array = npt.NDArray[np.float32]

# Of the inputs' mean square, added to all of them: without it the few directions in which inputs
# hardly vary would take up all errors.
DAMPING = 0.01
# A factor by which the damping grows where the moments are singular all the same.
_MORE_DAMPING, _MOST_DAMPING = 10.0, 100.0
# Columns that are rounded before all later ones are corrected at once.
_BLOCK = 64


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix.

    Attributes:
        matrix: What it was rounded to.
        error: Of the layer's outputs: the mean square of their change relative to their own.
        plain_error: The same for rounding that does not know the inputs.
        fell_back: Whether plain rounding was taken, because its error is the smaller.
    """

    matrix: QuantizedMatrix
    error: float
    plain_error: float
    fell_back: bool


def round_matrix(
    matrix: Float32Array, moments: Float32Array, weight_format: WeightFormat
) -> Rounded:
    """Round a matrix by the inputs' second moments.

    Args:
        matrix: ``(N, K)``.
        moments: ``(K, K)``.
        weight_format: One of integers.
    """
    plain = quantize(matrix, weight_format, "search")
    plain_error = output_error(matrix, dequantize(plain, weight_format), moments)
    compensated = _compensated(matrix, moments, weight_format)
    if compensated is not None:
        error = output_error(matrix, dequantize(compensated, weight_format), moments)
        if error <= plain_error:
            return Rounded(compensated, error, plain_error, fell_back=False)
    return Rounded(plain, plain_error, plain_error, fell_back=True)


def output_error(matrix: Float32Array, rounded: Float32Array, moments: Float32Array) -> float:
    """Return the mean square of a layer's change of output, relative to the output's own."""
    change, whole = (
        float(np.einsum("nk,nk->", each @ moments, each, dtype=np.float64))
        for each in (matrix - rounded, matrix)
    )
    return max(change, 0.0) / whole if whole > 0 else 0.0


def _compensated(
    matrix: Float32Array, moments: Float32Array, weight_format: WeightFormat
) -> QuantizedMatrix | None:
    """Return what GPTQ rounds a matrix to; None where the moments cannot be inverted."""
    squares = np.diagonal(moments)
    order = np.argsort(-squares, kind="stable")
    factor = _inverse_factor(moments[np.ix_(order, order)])
    if factor is None:
        return None
    width = matrix.shape[1]
    scales, row_scales = store_scales(
        _weighted_scales(matrix, squares, weight_format), weight_format
    )
    steps = (scales.astype(np.float32) * row_scales[:, None]).T
    values = _round_columns(
        np.ascontiguousarray(matrix.T)[order], factor, steps, order // GROUP_SIZE, weight_format
    )
    rounded = np.empty((len(matrix), width), np.float32)
    rounded[:, order] = values.T
    return quantize_with_scales(rounded, scales, row_scales, weight_format)


def _weighted_scales(
    matrix: Float32Array, importance: Float32Array, weight_format: WeightFormat
) -> Float32Array:
    """Return the scales ``(N, groups)`` with the least error, weighted for each column ``(K,)``."""
    rows, width = matrix.shape
    groups = -(-width // GROUP_SIZE)
    padded = np.zeros((rows, groups * GROUP_SIZE), np.float32)
    padded[:, :width] = matrix
    weights = np.zeros(groups * GROUP_SIZE, np.float32)
    weights[:width] = importance
    shape = (groups, GROUP_SIZE)
    scales = searched_scales(
        padded.reshape(rows, *shape), weight_format.grid, weights.reshape(shape)
    )
    return scales


def _round_columns(
    weights: Float32Array,
    factor: Float32Array,
    steps: Float32Array,
    groups: npt.NDArray[np.intp],
    weight_format: WeightFormat,
) -> Float32Array:
    """Round the rows of W^T in order, compensating each one's error in the later ones.

    Args:
        weights: ``(K, N)``, which is overwritten.
        factor: The upper factor of the inverse moments, ``(K, K)``.
        steps: The scales ``(groups, N)``.
        groups: Of each row of `weights`.
        weight_format: What weights are rounded to, in units of their steps.
    """
    width = len(weights)
    inverse = 1 / steps
    rounded, errors = np.empty_like(weights), np.empty((_BLOCK, weights.shape[1]), np.float32)
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        for k in range(start, end):
            value = nearest_values(weights[k] * inverse[groups[k]], weight_format)
            np.multiply(value, steps[groups[k]], out=rounded[k])
            error = np.divide(weights[k] - rounded[k], factor[k, k], out=errors[k - start])
            weights[k + 1 : end] -= factor[k, k + 1 : end, None] * error
        weights[end:] -= factor[start:end, end:].T @ errors[: end - start]
    return rounded


def _inverse_factor(moments: Float32Array) -> Float32Array | None:
    """Return the upper U with ``U^T U`` the inverse of the damped moments, or None."""
    exact = moments.astype(np.float64)
    diagonal = np.diagonal(exact).copy()
    mean = diagonal.mean()
    if not mean > 0:
        return None
    # An input that is always zero is free: any number on the diagonal leaves it alone.
    dead = diagonal == 0
    exact[dead, dead] = mean
    damping = DAMPING
    while damping <= _MOST_DAMPING:
        try:
            # H = R R^T with R upper is the Cholesky factorization from the last row up.
            lower = np.linalg.cholesky((exact + np.eye(len(exact)) * damping * mean)[::-1, ::-1])
        except np.linalg.LinAlgError:
            damping *= _MORE_DAMPING
            continue
        upper = np.ascontiguousarray(lower[::-1, ::-1])
        return _inverse_of_upper(upper).astype(np.float32)
    return None


def _inverse_of_upper(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Invert an upper triangular matrix by halves: products do nearly all of the work."""
    size = len(matrix)
    if size <= _BLOCK:
        return np.triu(np.linalg.inv(matrix))
    half = size // 2
    inverse = np.zeros_like(matrix)
    inverse[:half, :half] = _inverse_of_upper(matrix[:half, :half])
    inverse[half:, half:] = _inverse_of_upper(matrix[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ matrix[:half, half:] @ inverse[half:, half:]
    return inverse
