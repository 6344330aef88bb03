"""The run-length encodings of BMP, RLE4 and RLE8."""

import numpy as np

from mvlm.runtime.image.faults import CutShortError, DamagedError
from mvlm.runtime.image.rows import Array

_END_OF_ROW, _END, _MOVE = 0, 1, 2


def decode_rle(data: bytes, start: int, size: tuple[int, int], *, is_4_bit: bool) -> Array:
    """Decode palette indexes.

    Args:
        data: The file.
        start: Where the runs begin.
        size: Width and height in pixels.
        is_4_bit: RLE4; else RLE8.

    Returns:
        (height, width) uint8, in the order of the file. What the runs leave out is index 0.

    Raises:
        CutShortError: The file ends before the last pixel.
        DamagedError: The runs leave the image.
    """
    width, height = size
    indexes = np.zeros((height, width), np.uint8)
    x = y = 0
    position = start
    while y < height:
        if position + 2 > len(data):
            if x >= width and y == height - 1:
                break
            raise CutShortError(f"the end of the file in row {y:,} of {height:,}")
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            run = _alternate(value, count) if is_4_bit else value
            room = min(count, width - x)
            indexes[y, x : x + room] = run[:room] if isinstance(run, np.ndarray) else run
            x += room  # Encoders fill the last byte; what leaves the row is not shown.
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
        elif value == _END:
            break
        elif value == _MOVE:
            if position + 2 > len(data):
                raise CutShortError(f"the end of the file in row {y:,} of {height:,}")
            x, y = x + data[position], y + data[position + 1]
            position += 2
            if x > width or y > height:
                raise DamagedError(f"a move out of the image, to {x}, {y}")
        else:
            literal = _literal(data, position, value, is_4_bit)
            room = min(value, width - x)
            indexes[y, x : x + room] = literal[:room]
            x += room
            length = (value + 1) // 2 if is_4_bit else value
            position += length + length % 2
    return indexes


def _literal(data: bytes, position: int, count: int, is_4_bit: bool) -> Array:
    """Return `count` indexes that are not encoded."""
    length = (count + 1) // 2 if is_4_bit else count
    if position + length > len(data):
        raise CutShortError("the end of the file inside of a run")
    raw = np.frombuffer(data, np.uint8, count=length, offset=position)
    return np.stack([raw >> 4, raw & 15], axis=-1).reshape(-1) if is_4_bit else raw


def _alternate(value: int, count: int) -> Array:
    """Return `count` indexes, the upper and the lower half of `value` by turns."""
    return np.resize(np.array([value >> 4, value & 15], np.uint8), count)
