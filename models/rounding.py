"""How the scale of a group of weights is chosen.

``nearest`` takes the scale at which the group's extreme is just reached; every weight then goes to
the nearest level. ``search`` tries scales around that one, refits each to the levels that it led
to, and keeps the one with the least squared error: the extreme may be clipped where the other 31
weights gain more by finer levels than it loses. Both make the same number of bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Rounding = Literal["nearest", "search"]
Groups = npt.NDArray[np.float32]
Scales = npt.NDArray[np.float32]

# Scales that are tried, relative to the nearest one. Finer steps, or more of them, lower the error
# of normally distributed weights by less than a thousandth.
_CANDIDATES = tuple(np.linspace(0.7, 1.1, 9).tolist())


def nearest_scales(groups: Groups, lowest: int, highest: int) -> Scales:
    """Return the scales ``(rows, groups)`` at which extremes are just reached.

    Args:
        groups: ``(rows, groups, group size)``.
        lowest: The least level. Where it lies further out than the highest, it is given to the
            extreme, and the scale takes the sign that this needs.
        highest: The greatest level.
    """
    reach: Scales = np.abs(groups).max(axis=2)
    if -lowest <= highest:
        return reach / np.float32(highest)
    signs = np.where(groups.min(axis=2) == -reach, np.float32(1), np.float32(-1))
    scales: Scales = reach * signs / np.float32(-lowest)
    return scales


def searched_scales(groups: Groups, lowest: int, highest: int) -> Scales:
    """Return the scales with the least squared error; arguments as :func:`nearest_scales`.

    For given levels q the best scale is ``sum(w q) / sum(q q)``, and what it gains over a group of
    zeros is ``sum(w q)^2 / sum(q q)``.
    """
    # Squares of tiny or huge weights, and their scales' inverses, are beyond float32. A power of
    # two brings each group near one, and changes no digit of what is found.
    exponents = np.frexp(np.abs(groups).max(axis=2))[1]
    groups = np.ldexp(groups, -exponents[:, :, None])
    start = nearest_scales(groups, lowest, highest)
    start[start == 0] = 1
    signs = (1, -1) if -lowest > highest else (1,)
    best, most = start.copy(), np.full(start.shape, -1, np.float32)
    for factor in _CANDIDATES:
        for sign in signs:
            inverse = 1 / (start * np.float32(sign * factor))
            quantized = np.clip(np.rint(groups * inverse[:, :, None]), lowest, highest)
            product = np.einsum("rgk,rgk->rg", groups, quantized)
            square = np.einsum("rgk,rgk->rg", quantized, quantized)
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = product * product / square
                better = gain > most  # never where all levels are zero: that is not a number
                best[better] = product[better] / square[better]
                most[better] = gain[better]
    return np.ldexp(best, exponents)


ROUNDINGS: dict[str, Callable[[Groups, int, int], Scales]] = {
    "nearest": nearest_scales,
    "search": searched_scales,
}
