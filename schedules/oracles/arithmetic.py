"""The heavy operations in NumPy, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.bit_packing import NIBBLES_PER_WORD
from mvlm.models.quantization import GROUP_SIZE, MIN_ABSMAX, Q4MLC, QMAX

Array = npt.NDArray[Any]


def linear(x: Array, weight: Array) -> Array:
    """``(M, K)`` times ``(K, N)``."""
    return x.astype(np.float64) @ weight.astype(np.float64)


def from_q4(words: Array, scales: Array, width: int, zero: int = Q4MLC.zero_point) -> Array:
    """Rows of packed nibbles ``(N, words)`` as float32 ``(N, width)``, digit by digit."""
    out = np.empty((len(words), width), np.float32)
    for row, packed in enumerate(words):
        for column in range(width):
            word, place = divmod(column, NIBBLES_PER_WORD)
            nibble, scale = int(packed[word]) // 16**place % 16, scales[row, column // GROUP_SIZE]
            out[row, column] = np.float32(nibble - zero) * np.float32(scale)
    return out


def quantize_rows(x: Array, dtype: str = "int8", groups_per_scale: int = 1) -> tuple[Array, Array]:
    """Rows ``(M, K)`` as integers, and float32 scales of some groups of 32 each, step by step.

    Args:
        x: The rows.
        dtype: Of the integers.
        groups_per_scale: Groups of 32 that share a scale, at most: the largest number that divides
            a row's groups.
    """
    qmax = np.float32(QMAX[dtype])
    integers = np.zeros(x.shape, dtype)
    groups = -(-x.shape[1] // GROUP_SIZE)
    while groups % groups_per_scale:
        groups_per_scale -= 1
    scales = np.zeros((len(x), groups // groups_per_scale), np.float32)
    for row, values in enumerate(x.astype(np.float32)):
        for group in range(scales.shape[1]):
            scale_width = GROUP_SIZE * groups_per_scale
            part = slice(scale_width * group, scale_width * (group + 1))
            absmax = np.abs(values[part]).max()
            scales[row, group] = absmax / qmax
            if absmax >= np.float32(MIN_ABSMAX):
                integers[row, part] = np.rint(values[part] * (qmax / absmax))
    return integers, scales


def integer_linear(x: Array, x_scales: Array, weight: Array, scales: Array) -> Array:
    """Integers ``(M, K)`` times integers ``(K, N)``: exact within a group, groups in float64."""
    total = np.zeros((len(x), weight.shape[1]))
    groups_per_scale = len(scales) // x_scales.shape[1]
    for group in range(scales.shape[0]):
        part = slice(GROUP_SIZE * group, GROUP_SIZE * (group + 1))
        products = x[:, part].astype(np.float64) @ weight[part].astype(np.float64)
        x_scale = x_scales[:, group // groups_per_scale, None].astype(np.float64)
        factors = x_scale * scales[group].astype(np.float64)
        total += products * factors
    return total


def attention(qkv: Array, heads: int) -> Array:
    """Softmax attention of every row to every row; queries, keys and values concatenated."""
    length, width = qkv.shape
    q, k, v = np.moveaxis(qkv.astype(np.float64).reshape(length, 3, heads, -1), 0, 2)
    scores = q @ np.swapaxes(k, 1, 2) / np.sqrt(width / 3 / heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.moveaxis(weights @ v, 0, 1).reshape(length, width // 3)


def depthwise_convolution(x: Array, taps: Array, stride: int) -> Array:
    """Each channel of ``(G, G, C)`` with its own 3x3 kernel ``(9, C)``, padding 1."""
    padded = np.pad(x.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    side = (x.shape[0] - 1) // stride + 1
    out = np.zeros((side, side, x.shape[2]))
    for row in range(side):
        for column in range(side):
            window = padded[row * stride :, column * stride :][:3, :3]
            out[row, column] = (window.reshape(9, -1) * taps).sum(0)
    return out


def rotate(x: Array, positions: Array, theta: float = 10000.0) -> Array:
    """Heads ``(n, heads, head_dim)`` turned by their positions, halves as complex numbers."""
    half = x.shape[-1] // 2
    angles = np.asarray(positions)[:, None, None] * theta ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], -1)


def causal_attention(queries: Array, keys: Array, values: Array) -> Array:
    """The last positions' queries attend to all positions up to their own; heads second."""
    new, heads = queries.shape[:2]
    keys, values = (np.repeat(each, heads // each.shape[1], 1) for each in (keys, values))
    scores = np.einsum("ihd,jhd->hij", queries, keys) / np.sqrt(queries.shape[-1])
    seen = np.arange(len(keys)) <= np.arange(len(keys) - new, len(keys))[:, None]
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.asarray(np.einsum("hij,jhd->ihd", weights, values))


def int8_vectors(x: Array) -> tuple[Array, Array]:
    """Vectors ``(..., head_dim)`` as int8 and a float32 scale each."""
    absmax = np.abs(x.astype(np.float32)).max(-1)
    qmax = np.float32(QMAX["int8"])
    inverse = np.where(absmax < MIN_ABSMAX, 0, qmax / np.maximum(absmax, MIN_ABSMAX))
    return np.rint(x * inverse[..., None]).astype(np.int8), absmax / qmax
