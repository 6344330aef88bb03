"""Chooses scales, offsets and tables for groups of weights that are rounded to levels.

A group's weights w become ``step * (levels + offset)``. For given levels the best step and offset
are a line through w by least squares; the offset is then rounded to one of eight, and the step
refitted. Where levels just reach from the group's least weight to its greatest, or without an
offset to the larger of both, the search begins, and tries finer steps: the extremes may be clipped
where all other weights gain more by it.

Each 16 rows have the table with the less squared error at a few such steps. The largest step of a
row is 31 times what its others are integer multiples of; then multiples near each group's step are
tried, and offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization.formats import GROUP_SIZE, TABLE_ROWS, WeightFormat
from mvlm.models.quantization.group_scales import (
    LEAST_OFFSET,
    MAX_SCALE,
    OFFSET_STEP,
    OFFSETS,
    nearest_offsets,
    offset_values,
    pack_scales,
)
from mvlm.models.rounding import Grid, Rounding, normalized

Float32Array = npt.NDArray[np.float32]

# Steps that are tried to choose a table and the row's scale, relative to those that just reach the
# extremes, and to those that do without an offset: beside a lone extreme most weights are near
# zero, far from the middle. More of them lower the error by less than a hundredth.
_FACTORS, _FACTORS_ABOUT_ZERO = (0.85, 0.95, 1.05), (1.0, 0.9)
# Multiples of the row's scale that are tried then, relative to the best of these, and indices of
# offsets. Where few columns decide there are many minima, and the best is often farther away.
_MULTIPLES, _NEIGHBOURS = (0, -1, 1, 2), (0, -1, 1)
_MORE_MULTIPLES, _MORE_NEIGHBOURS = tuple(range(-3, 7)), tuple(range(-3, 4))
_MOST_OFFSET = LEAST_OFFSET + (OFFSETS - 1) * OFFSET_STEP
# A limit of steps in units of a group's largest weight: their squares have to fit into float32.
_MOST_EXPONENT = 40
# What a step may exceed a multiple of the row's scale by: float32's rounding.
_SLACK = 1e-4


@dataclass(frozen=True)
class TableScales:
    """What the groups of rows are rounded by.

    Attributes:
        stored: ``(rows, groups)``: scales and offsets (see `group_scales`); 0 of a group of zeros.
        row_scales: ``(rows,)``, what scales are multiples of.
        tables: ``(rows,)``, indices of the format's tables, the same for each 16 rows.
    """

    stored: npt.NDArray[np.int8]
    row_scales: Float32Array
    tables: npt.NDArray[np.intp]


def find_table_scales(
    matrix: npt.NDArray[Any],
    weight_format: WeightFormat,
    rounding: Rounding,
    importance: Float32Array | None = None,
) -> TableScales:
    """Choose what the groups of rows are rounded by.

    Args:
        matrix: ``(rows, K)``, finite, of any float type.
        weight_format: One with tables.
        rounding: With ``nearest`` the steps are those that just reach the extremes.
        importance: ``(K,)``, of the squared error of each column, not negative; equal if None. With
            it several times as many scales and offsets are tried.
    """
    values, exponents = _grouped(matrix)
    factors, sizes = _factors(importance, matrix.shape, exponents)
    is_searched = rounding == "search"
    fits = [_Fit(values, factors, grid) for grid in weight_format.grids]
    for fit in fits:
        fit.search() if is_searched else fit.reach()
    tables = _choose_tables([fit.errors() for fit in fits], sizes)
    chosen = tables, np.arange(len(tables))
    exact = np.stack([fit.steps for fit in fits])[chosen]
    offsets = np.stack([fit.offsets for fit in fits])[chosen]
    row_scales, units = _row_scales(exact, exponents)
    stored = np.empty(exact.shape, np.int8)
    for table, grid in enumerate(weight_format.grids):
        rows = tables == table
        if not rows.any():
            continue
        part = None if factors is None else factors.compress(rows, axis=1)
        fit, relative = _Fit(values.compress(rows, axis=1), part, grid), exact[rows] / units[rows]
        if is_searched:
            is_weighted = importance is not None
            stored[rows] = _searched(fit, relative, offsets[rows], units[rows], is_weighted)
        else:
            stored[rows] = _nearest(fit, relative, units[rows])
    return TableScales(stored, row_scales, tables)


def _grouped(matrix: npt.NDArray[Any]) -> tuple[Float32Array, npt.NDArray[Any]]:
    """Return weights as ``(group size, rows, groups)`` near one, and the powers of two taken away.

    A short last group repeats its last weight, which changes no extreme.
    """
    rows, width = matrix.shape
    missing = -width % GROUP_SIZE
    whole = np.pad(matrix, ((0, 0), (0, missing)), mode="edge") if missing else matrix
    groups = whole.astype(np.float32).reshape(rows, -1, GROUP_SIZE)
    values, exponents = normalized(groups)
    return values.reshape(GROUP_SIZE, *exponents.shape), exponents


def _factors(
    importance: Float32Array | None, shape: tuple[int, ...], exponents: npt.NDArray[Any]
) -> tuple[Float32Array | None, Float32Array]:
    """Return the factors of squared errors within groups, and of those of groups.

    Returns:
        ``(group size, rows, groups)``, at most 1, or None where all are equal; and
        ``(rows, groups)``, which make up for the powers of two that weights were divided by,
        relative to the largest of 16 rows.
    """
    rows, width = shape
    missing = -width % GROUP_SIZE
    starts = np.arange(0, rows, TABLE_ROWS)
    largest = np.maximum.reduceat(exponents.max(axis=1), starts)
    relative = exponents - np.repeat(largest, TABLE_ROWS)[:rows, None]
    sizes = np.ldexp(np.float32(1), np.maximum(2 * relative, -120))
    if importance is None and not missing:
        return None, sizes
    columns = np.ones(width, np.float32) if importance is None else importance
    groups = np.pad(columns, (0, missing)).reshape(-1, GROUP_SIZE)
    most = groups.max(axis=1, keepdims=True)
    within = np.where(most > 0, groups / np.where(most > 0, most, 1), np.float32(1))
    within = np.broadcast_to(within.T[:, None].astype(np.float32), (GROUP_SIZE, *exponents.shape))
    if most.max() > 0:
        sizes = sizes * (most[:, 0] / most.max())
    return np.ascontiguousarray(within), sizes


def _choose_tables(errors: Sequence[Float32Array], sizes: Float32Array) -> npt.NDArray[np.intp]:
    """Return the table of each row, by the errors ``(rows, groups)`` that each table makes."""
    starts = np.arange(0, len(sizes), TABLE_ROWS)
    sums = [
        np.add.reduceat(np.einsum("rg,rg->r", each, sizes, dtype=np.float64), starts)
        for each in errors
    ]
    tables: npt.NDArray[np.intp] = np.stack(sums).argmin(axis=0)
    return np.repeat(tables, TABLE_ROWS)[: len(sizes)]


def _row_scales(
    exact: Float32Array, exponents: npt.NDArray[Any]
) -> tuple[Float32Array, Float32Array]:
    """Return what the scales of rows are multiples of.

    Args:
        exact: Steps of groups near one, ``(rows, groups)``.
        exponents: The powers of two that these were divided by.

    Returns:
        It ``(rows,)``, and as each group's weights were divided ``(rows, groups)``.
    """
    largest = np.ldexp(exact, exponents).max(axis=1) / np.float32(MAX_SCALE)
    row_scales = np.maximum(largest, np.finfo(np.float32).tiny)
    fraction, power = np.frexp(row_scales)
    power = np.minimum(power[:, None] - exponents, _MOST_EXPONENT)
    return row_scales, np.ldexp(fraction[:, None], power)


def _searched(
    fit: _Fit,
    exact: Float32Array,
    offsets: npt.NDArray[Any],
    units: Float32Array,
    is_weighted: bool,
) -> npt.NDArray[np.int8]:
    """Return the bytes of groups with the least error that is found.

    Args:
        fit: The groups' weights ``(group size, rows, groups)``.
        exact: Good steps in units of the rows' scales, ``(rows, groups)``.
        offsets: Good indices of offsets, ``(rows, groups)``.
        units: The rows' scales, normalized as each group's weights are.
        is_weighted: Whether more is tried.
    """
    nearest = np.clip(np.rint(exact), 1, MAX_SCALE)
    for multiple in _MORE_MULTIPLES if is_weighted else _MULTIPLES:
        steps = np.clip(nearest + np.float32(multiple), 1, MAX_SCALE) * units
        for neighbour in _MORE_NEIGHBOURS if is_weighted else _NEIGHBOURS:
            fit.try_stored(steps, np.clip(offsets + neighbour, 0, OFFSETS - 1))
    scales = np.rint(fit.steps / units)
    return _without_zeros(fit, pack_scales(scales, fit.offsets))


def _nearest(fit: _Fit, exact: Float32Array, units: Float32Array) -> npt.NDArray[np.int8]:
    """Return the bytes by which groups just reach their extremes; arguments as above."""
    scales = np.clip(np.ceil(exact - np.float32(_SLACK)), 1, MAX_SCALE)
    stored = pack_scales(scales, fit.middle_offsets(scales * units))
    return _without_zeros(fit, stored)


def _without_zeros(fit: _Fit, stored: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    found: npt.NDArray[np.int8] = np.where(fit.is_zero, np.int8(0), stored)
    return found


@dataclass(frozen=True)
class _Sums:
    """Sums over the levels q and weights w of groups: of q, of q * q and of q * w."""

    levels: Float32Array
    squares: Float32Array
    products: Float32Array


class _Fit:
    """The best steps and offsets of groups so far.

    Args:
        values: ``(group size, rows, groups)``.
        factors: Of their squared errors, of that shape; equal if None.
        grid: The table.

    Attributes:
        is_zero: Whether all weights of a group are zero, ``(rows, groups)``.
        steps: The best ones; at first those by which the table just reaches the extremes.
        offsets: The indices of the best offsets.
    """

    def __init__(self, values: Float32Array, factors: Float32Array | None, grid: Grid) -> None:
        self._values, self._factors, self._grid = values, factors, grid
        low, high = values.min(axis=0), values.max(axis=0)
        self._middle = (low + high) / 2
        reach = np.float32(min(grid.highest, -grid.lowest))
        self._steps_about_zero = np.maximum(-low, high) / reach
        self.is_zero = (low == 0) & (high == 0)
        # A group far off zero has its extreme at the last level, farthest out.
        above = high / np.float32(grid.highest + _MOST_OFFSET)
        below = low / np.float32(grid.lowest + LEAST_OFFSET)
        spread = (high - low) / np.float32(grid.highest - grid.lowest)
        steps = np.maximum(spread, np.maximum(above, below))
        weighted = values if factors is None else values * factors
        self._count = np.float32(len(values)) if factors is None else factors.sum(axis=0)
        self._sum = weighted.sum(axis=0)
        self._square = np.einsum("krg,krg->rg", values, weighted)
        self.steps, self.offsets = steps, self.middle_offsets(steps)
        self._gains = np.full(steps.shape, -np.inf, np.float32)

    def errors(self) -> Float32Array:
        """Return the squared errors of groups by the best steps and offsets."""
        found: Float32Array = self._square - np.maximum(self._gains, 0)
        return found

    def middle_offsets(self, steps: Float32Array) -> npt.NDArray[np.intp]:
        """Return the indices of offsets by which the levels' middle is near the weights'."""
        return _nearest_offsets(self._middle, steps)

    def reach(self) -> None:
        """Round by the steps that just reach the extremes."""
        self._keep(self._round(self.steps, self.offsets), self.steps, self.offsets, ~self.is_zero)

    def search(self) -> None:
        """Try several steps, and keep the best."""
        first = self.steps
        for factor in _FACTORS:
            steps = first * np.float32(factor)
            self._try_line(steps, self.middle_offsets(steps))
        for factor in _FACTORS_ABOUT_ZERO:
            steps = self._steps_about_zero * np.float32(factor)
            self._try_line(steps, _nearest_offsets(np.zeros_like(steps), steps))

    def _try_line(self, steps: Float32Array, offsets: npt.NDArray[Any]) -> None:
        """Round, and take the step and offset of the line through the weights where it is better.

        Args:
            steps: By which is rounded, ``(rows, groups)``.
            offsets: The indices of those.
        """
        sums = self._round(steps, offsets)
        spread = self._count * sums.squares - sums.levels * sums.levels
        slope = self._count * sums.products - sums.levels * self._sum
        # Where all levels are equal there is no line.
        line = np.divide(slope, spread, out=steps.copy(), where=spread > 0)
        intercept = (self._sum - line * sums.levels) / self._count
        best = _nearest_offsets(intercept, np.maximum(line, 0))
        refitted = self._refitted(sums, best)
        self._keep(sums, refitted, best, refitted > 0)

    def try_stored(self, steps: Float32Array, offsets: npt.NDArray[Any]) -> None:
        """Round by steps that are settled and by offsets, and take what is better.

        The offsets are then those that are best for the levels.
        """
        sums = self._round(steps, offsets)
        best = _nearest_offsets((self._sum - steps * sums.levels) / self._count, steps)
        self._keep(sums, steps, best, ~self.is_zero)

    def _round(self, steps: Float32Array, offsets: npt.NDArray[Any]) -> _Sums:
        inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps > 0)
        levels = self._values * inverse
        levels -= offset_values(offsets)
        self._grid.round(levels, levels)
        weighted = levels if self._factors is None else levels * self._factors
        return _Sums(
            weighted.sum(axis=0),
            np.einsum("krg,krg->rg", levels, weighted),
            np.einsum("krg,krg->rg", self._values, weighted),
        )

    def _refitted(self, sums: _Sums, offsets: npt.NDArray[Any]) -> Float32Array:
        """Return the best steps for levels and offsets; 0 where that would not be positive."""
        product, square = self._shifted(sums, offsets)
        positive = np.maximum(product, 0)
        found: Float32Array = np.zeros_like(square)
        np.divide(positive, square, out=found, where=square > 0)
        return found

    def _shifted(self, sums: _Sums, offsets: npt.NDArray[Any]) -> tuple[Float32Array, Float32Array]:
        """Return the sums of w v and v v over v, levels with offsets."""
        shift = offset_values(offsets)
        product = sums.products + shift * self._sum
        square = sums.squares + shift * (2 * sums.levels + shift * self._count)
        return product, square

    def _keep(
        self,
        sums: _Sums,
        steps: Float32Array,
        offsets: npt.NDArray[Any],
        where: npt.NDArray[np.bool_],
    ) -> None:
        """Take steps and offsets where they are allowed to be and better."""
        product, square = self._shifted(sums, offsets)
        gains = steps * (2 * product - steps * square)
        better = where & (gains > self._gains)
        self.steps = np.where(better, steps, self.steps)
        self.offsets = np.where(better, offsets, self.offsets)
        self._gains = np.where(better, gains, self._gains)


def _nearest_offsets(shifts: Float32Array, steps: Float32Array) -> npt.NDArray[np.intp]:
    """Return the indices of the offsets that are nearest to shifts of weights, ``(rows, groups)``.

    Where a step is 0 it is that of zero.
    """
    relative = np.divide(shifts, steps, out=np.zeros_like(shifts), where=steps > 0)
    return nearest_offsets(relative)
