"""Encodes images, each once, as long as the budget of memory for their embeddings holds."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

import numpy as np

from mvlm.runtime.engine.positions import ImageEmbedding
from mvlm.runtime.engine.trace import Trace
from mvlm.runtime.errors import UsageError
from mvlm.runtime.model import FloatArray, Model


class ImageEncoder:
    """Vision tower and projector of a model, with a cache by the pixels' digest.

    Args:
        model: The loaded artifact.
        budget: Bytes of embeddings that are kept; the images used longest ago go first.

    Raises:
        UsageError: The budget does not hold one image.

    Attributes:
        seconds: Spent on encoding so far.
    """

    def __init__(self, model: Model, budget: int) -> None:
        self.seconds = 0.0
        self._model, self._budget = model, budget
        self._known: OrderedDict[bytes, ImageEmbedding] = OrderedDict()
        settings = model.settings
        self._image_bytes = settings.image_tokens * settings.hidden * 4
        if settings.image is not None and budget < self._image_bytes:
            raise UsageError(
                "the budget of encoded images",
                expected=f"at least {self._image_bytes} bytes, which one image takes",
                found=f"{budget} bytes",
            )

    def knows(self, digest: bytes) -> bool:
        """Return whether an image's embeddings are there."""
        return digest in self._known

    def encode(
        self, pixels: FloatArray, digest: bytes | None = None, trace: Trace | None = None
    ) -> ImageEmbedding:
        """Encode an image ``(1, 3, S, S)`` float32, or take its embeddings from the cache.

        Args:
            pixels: The image.
            digest: Its digest (`image_digest`), if known.
            trace: Records the stages; then the image is encoded anew.

        Raises:
            PromptError: The model reads text only, or the pixels are misshapen.
        """
        digest = digest or image_digest(pixels)
        known = self._known.get(digest)
        if known and trace is None:
            self._known.move_to_end(digest)
            return known
        device = self._model.device
        device.synchronize()
        start = time.perf_counter()
        features = self._model.vision_features(pixels)
        embeddings = self._model.project(features)
        device.synchronize()
        self.seconds += time.perf_counter() - start
        if trace:
            trace.pixel_values.append(pixels)
            trace.vision_features.append(device.download(features))
            trace.projector_output.append(device.download(embeddings))
        self._known[digest] = image = ImageEmbedding(digest, embeddings)
        while len(self._known) * self._image_bytes > self._budget:
            self._known.popitem(last=False)
        return image


def image_digest(pixels: FloatArray) -> bytes:
    """Return the sha256 of an image's dtype, shape and pixels."""
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
