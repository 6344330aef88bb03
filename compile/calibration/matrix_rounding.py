"""Rounds a linear layer's matrix by its inputs, or plainly where that is better."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mvlm.compile.calibration.gptq import InvertedMoments, invert, round_rows
from mvlm.models.quantization import (
    QuantizedMatrix,
    WeightFormat,
    concatenate,
    dequantize,
    quantize,
)
from mvlm.runtime.threads import default_threads

Float32Array = npt.NDArray[np.float32]
# Rows that are rounded at a time, by each thread: as many as keep NumPy's loops long, and what is
# computed on the way small.
ROWS = 1024


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


@dataclass(frozen=True)
class _RoundedRows:
    """Some rows, rounded in both ways.

    Attributes:
        plain: Without regard to their inputs.
        plain_square: The sum of squares of the outputs' change, times a constant.
        compensated: By their inputs; None where these have no moments.
        square: The same for these.
        whole: The sum of squares of the outputs, times that constant.
    """

    plain: QuantizedMatrix
    plain_square: float
    compensated: QuantizedMatrix | None
    square: float
    whole: float


def round_matrix(
    matrix: Float32Array, moments: Float32Array, weight_format: WeightFormat
) -> Rounded:
    """Round a matrix by the inputs' second moments.

    Args:
        matrix: ``(N, K)``.
        moments: ``(K, K)``.
        weight_format: One of integers.
    """
    inverted = invert(moments)
    starts = range(0, len(matrix), ROWS)
    # Rows do not depend on each other, and NumPy computes without Python's lock.
    with ThreadPoolExecutor(default_threads()) as threads:
        parts = list(
            threads.map(
                lambda start: _round_rows(
                    matrix[start : start + ROWS], moments, inverted, weight_format
                ),
                starts,
            )
        )
    return _chosen(parts)


def _chosen(parts: Sequence[_RoundedRows]) -> Rounded:
    """Return the whole matrix as the better way rounds it."""
    whole = sum(part.whole for part in parts)
    plain_error, error = (
        sum(squares) / whole if whole > 0 else 0.0
        for squares in ((part.plain_square for part in parts), (part.square for part in parts))
    )
    compensated = [part.compensated for part in parts if part.compensated is not None]
    if compensated and error <= plain_error:
        return Rounded(concatenate(compensated), error, plain_error, fell_back=False)
    plain = concatenate([part.plain for part in parts])
    return Rounded(plain, plain_error, plain_error, fell_back=True)


def _round_rows(
    rows: Float32Array,
    moments: Float32Array,
    inverted: InvertedMoments | None,
    weight_format: WeightFormat,
) -> _RoundedRows:
    plain = quantize(rows, weight_format, "search")
    compensated = None if inverted is None else round_rows(rows, moments, inverted, weight_format)
    plain_square, square = (
        0.0 if each is None else _square(rows - dequantize(each, weight_format), moments)
        for each in (plain, compensated)
    )
    return _RoundedRows(plain, plain_square, compensated, square, _square(rows, moments))


def _square(rows: Float32Array, moments: Float32Array) -> float:
    """Return the sum of squares of the outputs that rows ``(N, K)`` give, per input."""
    found = float(np.einsum("nk,nk->", rows @ moments, rows, dtype=np.float64))
    return max(found, 0.0)
