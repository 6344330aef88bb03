"""Encodes images, each once, as long as the budget of memory for their embeddings holds.

An image is encoded in parts, so that an engine can decode tokens between two of them.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mvlm.runtime.device.device import DeviceArray
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
        self._begun: _Begun | None = None
        settings = model.settings
        self._image_bytes = settings.image_tokens * settings.hidden * 4
        if settings.image is not None and budget < self._image_bytes:
            raise UsageError(
                "the budget of encoded images",
                expected=f"at least {self._image_bytes} bytes, which one image takes",
                found=f"{budget} bytes",
            )

    @property
    def count(self) -> int:
        """Images whose embeddings are kept."""
        return len(self._known)

    def knows(self, digest: bytes) -> bool:
        """Return whether an image's embeddings are there."""
        return digest in self._known

    def advance(
        self, pixels: FloatArray, digest: bytes, trace: Trace | None = None
    ) -> ImageEmbedding | None:
        """Encode the next part of an image, or take its embeddings from the cache.

        One image is encoded at a time: what is encoded of another one is dropped.

        Args:
            pixels: The image ``(1, 3, S, S)`` float32.
            digest: Its digest (`image_digest`).
            trace: Records the stages; then the image is encoded anew.

        Returns:
            The image; None as long as parts of it are left.

        Raises:
            PromptError: The model reads text only, or the pixels are misshapen.
        """
        known = self._known.get(digest)
        if known and trace is None:
            self._known.move_to_end(digest)
            return known
        begun = self._begun
        if begun is None or (begun.digest, begun.trace) != (digest, trace):
            begun = _Begun(digest, trace, self._model.vision_steps(pixels))
        # Whatever comes in between, the next call begins anew.
        self._begun = None
        with self._timed():
            states = next(begun.steps, None)
            if states is not None:
                begun.features, self._begun = states, begun
                return None
            assert begun.features is not None
            embeddings = self._model.project(begun.features)
        if trace:
            device = self._model.device
            trace.pixel_values.append(pixels)
            trace.vision_features.append(device.download(begun.features))
            trace.projector_output.append(device.download(embeddings))
        self._known[digest] = image = ImageEmbedding(digest, embeddings)
        while len(self._known) * self._image_bytes > self._budget:
            self._known.popitem(last=False)
        return image

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Add what the device computes within a block to the seconds."""
        device = self._model.device
        device.synchronize()
        start = time.perf_counter()
        yield
        device.synchronize()
        self.seconds += time.perf_counter() - start


@dataclass
class _Begun:
    """An image that is partly encoded.

    Attributes:
        digest: Of its pixels.
        trace: Records the stages, or None.
        steps: Computes the tower's parts that are left.
        features: What the last part returned; None before the first.
    """

    digest: bytes
    trace: Trace | None
    steps: Iterator[DeviceArray]
    features: DeviceArray | None = None


def image_digest(pixels: FloatArray) -> bytes:
    """Return the sha256 of an image's dtype, shape and pixels."""
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
