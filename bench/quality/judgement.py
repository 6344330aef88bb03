"""How far a quantized model's next-token distributions lie from float32's, on a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvlm.runtime.atomic_write import atomic_write

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]
# Gives the logits (n, V) of a sequence's n ids.
LogitsOf = Callable[[list[int]], FloatArray]


@dataclass(frozen=True)
class Judgement:
    """A model beside float32 on the same text.

    Attributes:
        perplexity: Of the text's tokens, each after those before it in its sequence.
        divergence: Mean Kullback-Leibler divergence KL(float32 || model), in nats.
        same_top: Share of positions, 0 to 1, where both find the same token the likeliest.
    """

    perplexity: float
    divergence: float
    same_top: float


def log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities that logits ``(n, V)`` stand for."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def divergence(exact: FloatArray, logits: FloatArray) -> float:
    """Mean over positions of KL(exact || other) of two arrays of logits ``(n, V)``, in nats."""
    return float(_divergences(exact, logits).mean())


def judge(sequences: IdArray, reference: Iterable[FloatArray], logits_of: LogitsOf) -> Judgement:
    """Judge a model.

    Args:
        sequences: Ids ``(s, n)``.
        reference: Float32's logits of each sequence, ``(n - 1, V)``: the last position's next
            token is not known.
        logits_of: The model.
    """
    loss = away = same = 0.0
    for ids, exact in zip(sequences, reference, strict=True):
        own = logits_of(ids.tolist())[:-1]
        loss += float((_log_sum_exp(own) - own[np.arange(len(own)), ids[1:]]).sum())
        away += float(_divergences(exact, own).sum())
        same += float((own.argmax(axis=-1) == exact.argmax(axis=-1)).sum())
    count = sequences.shape[0] * (sequences.shape[1] - 1)
    return Judgement(float(np.exp(loss / count)), away / count, same / count)


def write_logits(sequences: IdArray, logits_of: LogitsOf, file: Path) -> None:
    """Write the logits that :func:`judge` compares with, ``(s, n - 1, V)`` float32."""
    rows = [logits_of(ids.tolist())[:-1] for ids in sequences]
    with atomic_write(file) as opened:
        np.save(opened, np.stack(rows))


def read_logits(file: Path) -> Iterator[FloatArray]:
    """Yield the logits of one sequence after the other, mapped from the file."""
    yield from np.load(file, mmap_mode="r", allow_pickle=False)


def _divergences(exact: FloatArray, other: FloatArray) -> npt.NDArray[np.float64]:
    """KL of each position ``(n,)`` of logits ``(n, V)``.

    Sums are float64, what is summed float32: a vocabulary of 49,152 at 4,088 positions takes its
    time.
    """
    weights = np.exp(exact - exact.max(axis=-1, keepdims=True))
    away = (weights * (exact - other)).sum(axis=-1, dtype=np.float64)
    away /= weights.sum(axis=-1, dtype=np.float64)
    found: npt.NDArray[np.float64] = away - _log_sum_exp(exact) + _log_sum_exp(other)
    return found


def _log_sum_exp(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Logarithm of the sum of the exponentials ``(n,)`` of logits ``(n, V)``."""
    largest = logits.max(axis=-1, keepdims=True)
    sums = np.exp(logits - largest).sum(axis=-1, dtype=np.float64)
    found: npt.NDArray[np.float64] = largest[:, 0] + np.log(sums)
    return found
