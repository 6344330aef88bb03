"""Integers of fewer than 8 bits in the elements of the layout ``rows``: words of 32 bits.

4-bit integers are the nibbles of a word, the first in the lowest bits: weight k of a row is nibble
``k % 8`` of word ``k // 8``.

3-bit integers take the lower three bits of a nibble. A group of 32 takes three words: weights 0 to
23 are their nibbles, in order. The fourth bit of each nibble is left over, and holds the weights
from 24 on: bit b of weight ``24 + i`` is the fourth bit of nibble i of word b. So most weights are
found by one shift, and none lies across two words.

A row's last word, or group of three, that K does not fill ends in integers that stand for zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import WeightFormat

Array = npt.NDArray[Any]

NIBBLES_PER_WORD = 8
# Sets of nibbles that 3-bit integers fill, and the bit of a nibble that they leave over: in it lie
# the integers of one set more.
NIBBLE_SETS = 3
SPARE_BIT = 3
_SHIFTS = 4 * np.arange(NIBBLES_PER_WORD, dtype=np.uint32)


def join_sets(integers: Array) -> Array:
    """Put four sets of 3-bit integers ``(..., 4, n)`` into three of nibbles ``(..., 3, n)``.

    Bit b of the fourth set's integers becomes the fourth bit of the nibbles of set b.
    """
    bits = np.arange(NIBBLE_SETS, dtype=integers.dtype)[:, None]
    spare = integers[..., NIBBLE_SETS:, :] >> bits & 1
    joined: Array = integers[..., :NIBBLE_SETS, :] | spare << SPARE_BIT
    return joined


def split_sets(nibbles: Array) -> Array:
    """Undo :func:`join_sets`."""
    bits = np.arange(NIBBLE_SETS, dtype=nibbles.dtype)[:, None]
    last = np.bitwise_or.reduce(nibbles >> SPARE_BIT << bits, axis=-2, keepdims=True)
    return np.concatenate([nibbles & ((1 << SPARE_BIT) - 1), last], axis=-2)


def pack_rows(stored: Array, weight_format: WeightFormat) -> Array:
    """Put stored integers ``(rows, K)`` into elements ``(rows, elements)``."""
    if weight_format.packing == 1:
        return stored.astype(weight_format.dtype)
    rows, width = stored.shape
    elements = weight_format.elements(width)
    count = elements * 8 * np.dtype(weight_format.dtype).itemsize // weight_format.bits
    whole: Array = np.full((rows, count), weight_format.zero_point, weight_format.dtype)
    whole[:, :width] = stored
    if weight_format.bits == 3:
        whole = join_sets(whole.reshape(rows, -1, NIBBLE_SETS + 1, NIBBLES_PER_WORD))
    nibbles = whole.reshape(rows, elements, NIBBLES_PER_WORD)
    packed: Array = np.bitwise_or.reduce(nibbles << _SHIFTS, axis=2)
    return packed


def unpack_rows(elements: Array, weight_format: WeightFormat, width: int) -> Array:
    """Return the stored integers ``(rows, width)`` of :func:`pack_rows`' elements."""
    if weight_format.packing == 1:
        return elements[:, :width]
    nibbles = elements[:, :, None] >> _SHIFTS & np.uint32(15)
    if weight_format.bits == 3:
        nibbles = split_sets(nibbles.reshape(len(elements), -1, NIBBLE_SETS, NIBBLES_PER_WORD))
    return nibbles.reshape(len(elements), -1)[:, :width]
