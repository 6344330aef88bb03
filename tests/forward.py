"""One sequence of a model over a KV cache of its own: what is computed without the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mvlm.runtime.kv_cache import Run
from mvlm.runtime.model import Model
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

Floats = npt.NDArray[np.float32]


class Forward:
    """A sequence that prompts and tokens are appended to.

    Args:
        model: The loaded artifact.
        capacity: Positions that fit; the model's context if None.

    Attributes:
        length: Positions that the cache holds. A test may make it smaller, to go on from there.
    """

    def __init__(self, model: Model, capacity: int | None = None) -> None:
        self.model, self.length = model, 0
        self.cache = model.new_cache(capacity)

    def prefill(
        self, ids: Sequence[int], *, pixels: Sequence[Floats] = (), chunk: int | None = None
    ) -> Floats:
        """Append a prompt; the logits ``(positions, vocabulary)`` of all its positions.

        Args:
            ids: The prompt, with -200 in the place of each image.
            pixels: The images ``(1, 3, S, S)``, one for each place.
            chunk: Positions of a call; as many as the model takes if None.
        """
        rows = self._embeddings(ids, pixels)
        chunk = chunk or self.model.settings.prefill_chunk
        parts = []
        for begin in range(0, rows.shape[1], chunk):
            part = self.model.device.upload(rows[:, begin : begin + chunk].copy())
            run = self._run(part.shape[1])
            parts.append(self.model.prefill(part, self.cache, [run]))
            self.length += run.count
        return np.concatenate(parts)

    def decode(self, token: int) -> Floats:
        """Append a token; the logits ``(vocabulary,)`` behind it."""
        (logits,) = self.model.decode([token], self.cache, [self._run(1)])
        self.length += 1
        return logits

    def _run(self, count: int) -> Run:
        assert self.length + count <= self.cache.pages * self.cache.spec.page_size
        return Run(self.length, count, range(self.cache.pages))

    def _embeddings(self, ids: Sequence[int], pixels: Sequence[Floats]) -> Floats:
        model, shown, parts = self.model, iter(pixels), []
        for token in ids:
            if token == IMAGE_TOKEN_ID:
                parts.append(model.project(model.vision_features(next(shown))))
            else:
                parts.append(model.embed([token]))
        return np.concatenate([model.device.download(part) for part in parts], axis=1)


def logits_of(
    model: Model, ids: Sequence[int], *, pixels: Sequence[Floats] = (), capacity: int | None = None
) -> Floats:
    """Return the logits ``(positions, vocabulary)`` of a prompt that is computed by itself."""
    return Forward(model, capacity).prefill(ids, pixels=pixels)
