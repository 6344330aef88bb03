"""The model's distributions of next tokens, and how far others are from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


class NextTokens:
    """The exact distributions of next tokens behind each position of some sequences.

    Args:
        head: The output head's matrix ``(V, H)``.
        hidden: The input of the head for each sequence, ``(1, n, H)``.
    """

    def __init__(self, head: Float32Array, hidden: Sequence[Float32Array]) -> None:
        self._head = head
        self._exact = [self._log_probabilities(each) for each in hidden]

    def divergence(self, index: int, hidden: Float32Array) -> float:
        """Return the sum over positions of the divergence (Kullback-Leibler) from the exact ones.

        Args:
            index: Of the sequence.
            hidden: The input of the head, ``(1, n, H)``.

        Returns:
            Nats.
        """
        exact = self._exact[index]
        found = self._log_probabilities(hidden)
        np.subtract(exact, found, out=found)
        return float(np.einsum("nv,nv->", np.exp(exact), found, dtype=np.float64))

    def _log_probabilities(self, hidden: Float32Array) -> Float32Array:
        """Return the logarithms ``(n, V)`` of the next tokens' probabilities."""
        logits: Float32Array = hidden[0] @ self._head.T
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits
