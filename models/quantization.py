"""Quantization schemes: how a matrix is stored, and the NumPy code that packs and unpacks it.

A matrix of a linear layer arrives as ``(out_features, in_features)`` = ``(N, K)``, the checkpoint's
orientation. It is stored transposed, ``(K, N)``, so that a kernel reads neighbouring output
features from neighbouring addresses and vectorizes over them. An embedding table keeps its
``(vocabulary, hidden)`` orientation, since one token reads one row.

``q4f16_1`` holds the numbers of mlc-llm's scheme of that name: groups of 32 weights along K share
one float16 scale ``max|w| / 7``, and each weight is the nibble
``clip(round(w / scale + 7), 0, 14)`` with ``w ~ (nibble - 7) * scale``. Eight nibbles lie in a
uint32, the lowest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import UsageError

GROUP_SIZE = 32
NIBBLES_PER_WORD = 8
_ZERO_POINT = 7
_LARGEST_NIBBLE = 14


@dataclass(frozen=True)
class Scheme:
    """How the weights of a part of the model are stored.

    Attributes:
        name: The scheme's name on the command line.
        storage: What a matrix is made of: a float type, or packed nibbles with scales.
        bits_per_weight: Bits that one weight of a large matrix takes, its scale included.
        vision: The scheme that the tower and the projector get unless the user names one.
    """

    name: str
    storage: Literal["float32", "float16", "q4"]
    bits_per_weight: float
    vision: str

    @property
    def is_quantized(self) -> bool:
        """Whether a matrix is stored as integers with scales."""
        return self.storage == "q4"


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f32", "float32", 32, vision="q0f32"),
        Scheme("q0f16", "float16", 16, vision="q0f16"),
        Scheme("q4f16_1", "q4", 4 + 16 / GROUP_SIZE, vision="q0f16"),
    )
}
DEFAULT_SCHEME = "q4f16_1"
_BLOCK_VALUES = 1 << 20  # of a matrix that are quantized at once


def find_scheme(name: str) -> Scheme:
    """Return the scheme of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in SCHEMES:
        raise UsageError(
            "unknown quantization",
            expected=" or ".join(SCHEMES),
            found=repr(name),
        )
    return SCHEMES[name]


def quantize_q4(
    matrix: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float16]]:
    """Quantize rows in groups of 32 along the last axis.

    A last axis that no 32 divides ends in a shorter group; its words are filled up with nibbles
    that stand for zero.

    Args:
        matrix: ``(rows, K)``, finite.

    Returns:
        Words ``(rows, ceil(K / 8))`` and scales ``(rows, ceil(K / 32))``.
    """
    rows, width = matrix.shape
    words = np.empty((rows, -(-width // NIBBLES_PER_WORD)), np.uint32)
    scales = np.empty((rows, -(-width // GROUP_SIZE)), np.float16)
    # Some rows at a time: what is computed on the way takes several times a matrix's memory.
    step = max(1, _BLOCK_VALUES // width)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        words[block], scales[block] = _quantize_rows(matrix[block])
    return words, scales


def _quantize_rows(
    matrix: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float16]]:
    rows, width = matrix.shape
    groups = -(-width // GROUP_SIZE)
    padded = np.zeros((rows, groups * GROUP_SIZE), np.float32)
    padded[:, :width] = matrix
    grouped = padded.reshape(rows, groups, GROUP_SIZE)

    largest = np.abs(grouped).max(axis=2)
    # A scale beyond float16 would turn the group into infinities; the clip costs such a group
    # precision instead. A group of zeros gets scale 1, so that nothing divides by zero.
    scales = np.minimum(largest / _ZERO_POINT, np.finfo(np.float16).max).astype(np.float16)
    scales = np.where(scales == 0, np.float16(1), scales)
    exact = grouped / scales.astype(np.float32)[:, :, None]
    nibbles = np.clip(np.rint(exact + _ZERO_POINT), 0, _LARGEST_NIBBLE).astype(np.uint32)

    words = nibbles.reshape(rows, -1, NIBBLES_PER_WORD)
    shifts = np.arange(NIBBLES_PER_WORD, dtype=np.uint32) * 4
    packed = np.bitwise_or.reduce(words << shifts, axis=2)
    return packed[:, : -(-width // NIBBLES_PER_WORD)], scales


def dequantize_q4(
    words: npt.NDArray[np.uint32], scales: npt.NDArray[np.float16], width: int
) -> npt.NDArray[np.float32]:
    """Undo :func:`quantize_q4` up to rounding: ``(rows, width)`` in float32."""
    shifts = np.arange(NIBBLES_PER_WORD, dtype=np.uint32) * 4
    nibbles = (words[:, :, None] >> shifts) & 15
    values = nibbles.reshape(words.shape[0], -1)[:, :width].astype(np.float32) - _ZERO_POINT
    return values * np.repeat(scales.astype(np.float32), GROUP_SIZE, axis=1)[:, :width]
