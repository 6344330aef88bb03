"""Random tokens: the prompt where only time and memory count."""

from __future__ import annotations

import numpy as np

# Ids below are special in LLaMA's vocabularies: unknown, beginning and end of a sequence.
_FIRST_ORDINARY_ID = 3


def random_tokens(vocabulary: int, count: int) -> list[int]:
    """Return `count` ordinary token ids of a vocabulary; the same ones each time."""
    first = min(_FIRST_ORDINARY_ID, vocabulary - 1)
    words: list[int] = np.random.default_rng(0).integers(first, vocabulary, count).tolist()
    return words
