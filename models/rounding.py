"""What weights are rounded to, and how the scale of a group of weights is chosen.

``nearest`` takes the scale at which the group's extreme is just reached; every weight then goes to
the nearest integer. ``search`` tries scales around that one, refits each to the integers that it
led to, and keeps the one with the least squared error: the extreme may be clipped where the other
31 weights gain more by finer steps than it loses. Both make the same number of bits. Formats with
tables of levels have offsets as well (see `quantization.table_search`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Rounding = Literal["nearest", "search"]
Groups = npt.NDArray[np.float32]
Scales = npt.NDArray[np.float32]

# Scales that are tried, relative to the nearest one. Finer steps, or more of them, lower the error
# of normally distributed weights by less than a hundredth.
_CANDIDATES = tuple(np.linspace(0.7, 1.1, 9).tolist())
_BYTE_VALUES = 256


@dataclass(frozen=True)
class Grid:
    """The integers that weights, in units of their scales, are rounded to.

    Attributes:
        lowest: The least.
        highest: The greatest.
        levels: All of them, ascending, within -64 to 63; empty where every integer between the two
            is one.
    """

    lowest: int
    highest: int
    levels: tuple[int, ...] = ()

    @cached_property
    def _is_odd(self) -> bool:
        """Whether the levels are all odd integers between the least and the greatest."""
        odd = tuple(range(self.lowest, self.highest + 1, 2))
        return self.levels == odd and self.lowest % 2 == 1

    def round(self, values: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
        """Round to the nearest integers of the grid.

        A value half-way between two goes to the even one, and of levels to the greater.

        Args:
            values: Contiguous.
            out: Of their shape, contiguous; it may be `values`.
        """
        if not self.levels:
            np.rint(values, out=out)
            np.clip(out, self.lowest, self.highest, out=out)
            return
        if self._is_odd:
            np.multiply(values, np.float32(0.5), out=out)
            np.floor(out, out=out)
            np.multiply(out, 2, out=out)
            np.add(out, 1, out=out)
            np.clip(out, self.lowest, self.highest, out=out)
            return
        halves = self._halves(values, out)
        if halves.size % 2:
            np.take(self._levels_by_halves, halves.view(np.uint8), out=out, mode="wrap")
            return
        # Two at a time: a lookup takes as long for eight bytes as for one.
        pairs = halves.reshape(-1).view(np.uint16).astype(np.intp)
        np.take(self._pairs, pairs, out=out.reshape(-1).view(np.int64), mode="wrap")

    def indices(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the indices of the levels that :meth:`round` rounds to."""
        halves = self._halves(values, np.empty_like(values))
        found: npt.NDArray[np.uint8] = np.take(self._by_halves, halves.view(np.uint8))
        return found

    def _halves(
        self, values: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int8]:
        """Return the integers ``floor(2 * value)``, clipped.

        Levels are integers, so that half-way between two lies a multiple of a half: of all values
        between two such multiples the nearest level is the same.
        """
        np.multiply(values, np.float32(2), out=out)
        np.floor(out, out=out)
        np.clip(out, 2 * self.lowest, 2 * self.highest, out=out)
        return out.astype(np.int8)

    @cached_property
    def _by_halves(self) -> npt.NDArray[np.uint8]:
        """The index of the nearest level by ``floor(2 * value)``, as an unsigned byte."""
        within = np.arange(_BYTE_VALUES, dtype=np.uint8).view(np.int8) / 2 + 0.25
        distances = np.abs(within[:, None] - np.array(self.levels))
        found: npt.NDArray[np.uint8] = distances.argmin(axis=1).astype(np.uint8)
        return found

    @cached_property
    def _levels_by_halves(self) -> npt.NDArray[np.float32]:
        return np.array(self.levels, np.float32)[self._by_halves]

    @cached_property
    def _pairs(self) -> npt.NDArray[np.int64]:
        """Two levels in float32 by two such bytes, the first in the lower bits."""
        levels = self._levels_by_halves
        table = np.empty((_BYTE_VALUES, _BYTE_VALUES, 2), "<f4")
        table[..., 0], table[..., 1] = levels[None, :], levels[:, None]
        return table.reshape(-1).view(np.int64)


def nearest_scales(groups: Groups, grid: Grid) -> Scales:
    """Return the scales ``(rows, groups)`` at which extremes are just reached.

    Args:
        groups: ``(rows, groups, group size)``.
        grid: What weights are rounded to, symmetric.
    """
    reach: Scales = np.abs(groups).max(axis=2)
    return reach / np.float32(grid.highest)


def searched_scales(groups: Groups, grid: Grid, importance: Groups | None = None) -> Scales:
    """Return the scales with the least squared error.

    For given integers q the best scale is ``sum(w q) / sum(q q)``, and what it gains over a group
    of zeros is ``sum(w q)^2 / sum(q q)``; with importances as factors of all summands.

    Args:
        groups: ``(rows, groups, group size)``.
        grid: What weights are rounded to, symmetric.
        importance: ``(groups, group size)``, of the error of each weight, not negative; equal if
            None.
    """
    weights, exponents = normalized(groups)
    factors = None if importance is None else _factors(importance, len(groups))
    start = np.abs(weights).max(axis=0) / np.float32(grid.highest)
    best, most = start.copy(), np.full(start.shape, -1, np.float32)
    best[best == 0] = 1
    for factor in _CANDIDATES:
        scale = start * np.float32(factor)
        quantized = _rounded(weights, scale, grid)
        weighted = quantized if factors is None else quantized * factors
        product = np.einsum("kn,kn->n", weights, weighted)
        square = np.einsum("kn,kn->n", quantized, weighted)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = product * product / square
            better = gain > most  # never where all are zero: that is not a number
            np.copyto(best, product / square, where=better)
            np.copyto(most, gain, where=better)
    return _restored(best, exponents)


def _factors(importance: Groups, rows: int) -> Groups:
    """Return importances as :func:`normalized` arranges groups, 1 at the most in each group."""
    most = importance.max(axis=1, keepdims=True)
    relative = np.where(most > 0, importance / np.where(most > 0, most, 1), np.float32(1))
    return np.ascontiguousarray(np.tile(relative, (rows, 1)).T.astype(np.float32))


def normalized(groups: Groups) -> tuple[Groups, npt.NDArray[Any]]:
    """Return groups near one as ``(group size, rows * groups)``, and the powers of two taken away.

    Squares of tiny or huge weights, and their scales' inverses, are beyond float32. A power of two
    changes no digit of what is found. Groups come last for the sake of vectors: scales do as well.
    """
    exponents = np.frexp(np.abs(groups).max(axis=2))[1]
    near_one = np.ldexp(groups, -exponents[:, :, None])
    return np.ascontiguousarray(near_one.reshape(-1, groups.shape[2]).T), exponents


def _restored(scales: Scales, exponents: npt.NDArray[Any]) -> Scales:
    found: Scales = np.ldexp(scales.reshape(exponents.shape), exponents)
    return found


def _rounded(weights: Groups, scales: Scales, grid: Grid) -> Groups:
    """Return the integers of ``(group size, n)`` by scales ``(n,)``; zeros where one is zero."""
    with np.errstate(divide="ignore"):
        inverse = np.where(scales == 0, np.float32(0), 1 / scales)
    quantized: Groups = weights * inverse
    grid.round(quantized, quantized)
    return quantized


ROUNDINGS: dict[str, Callable[[Groups, Grid], Scales]] = {
    "nearest": nearest_scales,
    "search": searched_scales,
}
