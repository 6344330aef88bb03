"""Rounding by the error in a layer's output: GPTQ (Frantar et al. 2022, arXiv 2210.17323).

A matrix W ``(N, K)`` is to be rounded to Q such that the layer's outputs change least, on the
inputs x that calibration has seen: the squared error is the sum over rows of ``e H e^T`` with
``e = w - q`` and the second moments ``H = E[x x^T]``, ``(K, K)``. Columns of W are rounded one
after the other, and the error of each is compensated by those that are still to be rounded: by how
much is in the Cholesky factor of H's inverse.

Columns with the largest inputs come first: most others are then left to make up for their errors.
The scales of all groups are chosen before (static groups), so that a column's place in the order
does not depend on its group: as without calibration, but with the squared error of each column
weighted by its inputs' mean square. Coordinate descent then goes over columns and scales again
(see `coordinate_descent`).

Matrices are transposed here, ``(K, N)``, so that a column of W is contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.compile.calibration.coordinate_descent import RoundedColumns, descend, inverse_steps
from mvlm.compile.calibration.group_search import GroupMoments, group_moments
from mvlm.compile.calibration.moments import damped
from mvlm.models.quantization import (
    GROUP_SIZE,
    QuantizedMatrix,
    WeightFormat,
    find_table_scales,
    join_indices,
    quantize_with_scales,
    store_scales,
)
from mvlm.models.rounding import Grid, searched_scales

Float32Array = npt.NDArray[np.float32]

# Of the inputs' mean square, added to all of them: without it the few directions in which inputs
# hardly vary would take up all errors. By held-out text: a hundredth overfits the default data.
DAMPING = 0.1
# A factor by which the damping grows where the moments are singular all the same.
_MORE_DAMPING, _MOST_DAMPING = 10.0, 100.0
# Of coordinate descent. Two more lower the error by less than a hundredth.
SWEEPS = 2
# Columns that are rounded before all later ones are corrected at once.
_BLOCK = 64


def round_rows(
    matrix: Float32Array,
    moments: Float32Array,
    inverted: InvertedMoments,
    weight_format: WeightFormat,
) -> QuantizedMatrix:
    """Round rows of a matrix by GPTQ, and then by coordinate descent.

    Args:
        matrix: ``(N, K)``, some of its rows.
        moments: ``(K, K)``, of the inputs.
        inverted: The same.
        weight_format: One of integers.
    """
    if weight_format.has_tables:
        return _round_to_tables(matrix, inverted, weight_format)
    exact = _weighted_scales(matrix, np.diagonal(moments), weight_format)
    scales = store_scales(exact, weight_format)
    columns = _rounded_columns(matrix, scales, inverted, weight_format)
    scales = np.ascontiguousarray(columns.scales.T)
    return quantize_with_scales(columns.weights().T, scales, weight_format)


def _round_to_tables(
    matrix: Float32Array, inverted: InvertedMoments, weight_format: WeightFormat
) -> QuantizedMatrix:
    """Round rows to levels; arguments as above.

    The rows of each table are rounded at once, in units of their scales.
    """
    # What an error costs that the group's other columns make up for as well as they can.
    importance = np.concatenate([1 / np.diagonal(each.inverse) for each in inverted.groups])
    found = find_table_scales(matrix, weight_format, "search", importance)
    integers = np.empty(matrix.shape, np.uint8)
    for table, grid in enumerate(weight_format.grids):
        rows = np.flatnonzero(found.tables == table)
        if not len(rows):
            continue
        units = matrix[rows] / found.row_scales[rows, None]
        columns = _rounded_columns(units, found.stored[rows], inverted, weight_format, grid)
        found.stored[rows] = columns.scales.T
        offsets = np.repeat(columns.offsets(), GROUP_SIZE, axis=0)[: matrix.shape[1]]
        integers[rows] = grid.indices(columns.values - offsets).T
    return join_indices(integers, found, weight_format)


def _rounded_columns(
    matrix: Float32Array,
    scales: npt.NDArray[Any],
    inverted: InvertedMoments,
    weight_format: WeightFormat,
    grid: Grid | None = None,
) -> RoundedColumns:
    """Round rows ``(N, K)`` by scales ``(N, groups)`` that are chosen, and change these then."""
    columns = RoundedColumns(
        np.empty(matrix.T.shape, np.float32), np.ascontiguousarray(scales.T), weight_format, grid
    )
    weights = np.ascontiguousarray(matrix.T)
    _round_columns(weights, columns, inverted)
    descend(weights, columns, inverted.damped, inverted.groups, SWEEPS)
    return columns


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
    weights: Float32Array, columns: RoundedColumns, inverted: InvertedMoments
) -> None:
    """Round the rows of W^T in order, compensating each one's error in the later ones.

    Args:
        weights: ``(K, N)``.
        columns: Whose values are set.
        inverted: The moments.
    """
    order, factor, steps = inverted.order, inverted.factor, columns.steps()
    width, groups = len(weights), order // GROUP_SIZE
    left, inverse = weights[order], inverse_steps(steps)
    errors = np.empty((_BLOCK, weights.shape[1]), np.float32)
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        for k in range(start, end):
            value = columns.nearest(left[k] * inverse[groups[k]], groups[k])
            columns.values[order[k]] = value
            error = left[k] - value * steps[groups[k]]
            np.divide(error, factor[k, k], out=errors[k - start])
            left[k + 1 : end] -= factor[k, k + 1 : end, None] * errors[k - start]
        left[end:] -= factor[start:end, end:].T @ errors[: end - start]


@dataclass(frozen=True)
class InvertedMoments:
    """What rounding needs of the moments.

    Attributes:
        order: In which columns are rounded, ``(K,)``.
        factor: In that order, the upper U ``(K, K)`` with ``U^T U`` the inverse of the damped
            moments.
        damped: The damped moments, in the matrix's order.
        groups: The same within each group.
    """

    order: npt.NDArray[np.intp]
    factor: Float32Array
    damped: Float32Array
    groups: tuple[GroupMoments, ...]


def invert(moments: Float32Array) -> InvertedMoments | None:
    """Invert moments, damped as much as that needs; None where they are all zero."""
    squares = np.diagonal(moments)
    if not squares.max() > 0:
        return None
    order = np.argsort(-squares, kind="stable")
    damping = DAMPING
    while damping <= _MOST_DAMPING:
        exact = damped(moments, damping)
        try:
            # H = R R^T with R upper is the Cholesky factorization from the last row up.
            last_first = order[::-1]
            lower = np.linalg.cholesky(exact[np.ix_(last_first, last_first)])
        except np.linalg.LinAlgError:
            damping *= _MORE_DAMPING
            continue
        upper = np.ascontiguousarray(lower[::-1, ::-1])
        factor = _inverse_of_upper(upper).astype(np.float32)
        groups = group_moments(exact)
        return InvertedMoments(order, factor, exact.astype(np.float32), groups)
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
