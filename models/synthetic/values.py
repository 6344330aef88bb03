"""Random weights at unit scale: activations and logits near one, as in a trained model.

Every tensor has a generator of its own, seeded by its name, so that its values depend neither on
the order of writing nor on the shards.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.weight_files.tensor_file import TensorInfo

_EMBEDDINGS = (
    "embed_tokens.weight",
    "token_embedding.weight",
    "class_embedding",
    "position_embedding.weight",
)


def random_values(name: str, info: TensorInfo, seed: int) -> npt.NDArray[Any]:
    """Return values for a tensor: float32 whatever it is stored as, or positions as int64."""
    if info.dtype == "int64":
        return np.arange(math.prod(info.shape), dtype=np.int64).reshape(info.shape)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(info.shape, np.float32)
    # A norm: some have numbers for names, but no other weight is a vector.
    if name.endswith(".weight") and len(info.shape) == 1:
        return values * np.float32(0.2) + np.float32(1)
    values *= np.float32(_scale(name, info.shape))
    return values


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if name.endswith(".bias"):
        return 0.1
    if name.endswith(_EMBEDDINGS):
        return 0.04
    return 1 / math.sqrt(math.prod(shape[1:]))
