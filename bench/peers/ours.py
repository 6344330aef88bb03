"""mvlm itself, run as the other tools are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mvlm.bench.peers.runner import FloatArray, RgbImage, Setup
from mvlm.bench.report import versions, weight_bytes_per_token
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.image import preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.session import Session
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID


def open_runner(setup: Setup) -> Ours:
    """Open an artifact, named `artifact` in the setup's files."""
    return Ours(setup)


class Ours:
    """A compiled model and one session of it."""

    def __init__(self, setup: Setup) -> None:
        self._bos = setup.bos
        self._folder = Path(setup.files["artifact"])
        self._model = Model(self._folder, setup.threads)
        self._context = min(setup.context, self._model.settings.context)
        self._session = Session(self._model, self._context)
        self._token = 0
        self._pixels: FloatArray | None = None

    def facts(self) -> dict[str, Any]:
        """Return versions, quantization, and the bytes that a decoded token reads."""
        manifest = self._model.manifest
        return {
            "versions": versions() | {"tvm": manifest.abi.tvm},
            "quantization": dict(manifest.quantization),
            "artifact": manifest.digest,
            "weight_bytes_per_token": weight_bytes_per_token(read_weights_index(self._folder)),
        }

    def prefill(self, ids: Sequence[int]) -> None:
        """Read a prompt into the emptied session."""
        self._session.clear()
        self._token = int(np.argmax(self._session.prefill(ids).logits))

    def decode(self) -> None:
        """Decode one token."""
        self._token = int(np.argmax(self._session.decode(self._token)))

    def set_image(self, image: RgbImage) -> None:
        """Preprocess an image."""
        spec = self._model.settings.image
        assert spec is not None
        self._pixels = preprocess(Image.fromarray(image), spec)

    def encode_image(self) -> None:
        """Run tower and projector; a session would remember the image."""
        self._model.project(self._model.vision_features(self._shown()))
        self._model.device.synchronize()

    def features(self) -> FloatArray | None:
        """Return the tower's features ``(1, patches, C)``."""
        features: FloatArray = self._model.device.download(
            self._model.vision_features(self._shown())
        )
        return features

    def first_token(self, image: RgbImage, ids: Sequence[int]) -> None:
        """Read an image and a question in a new session, which knows no image."""
        self._session = Session(self._model, self._context)
        self.set_image(image)
        seen = self._session.encode_image(self._shown())
        prefill = self._session.prefill([self._bos, IMAGE_TOKEN_ID, *ids], [seen])
        self._token = int(np.argmax(prefill.logits))

    def _shown(self) -> FloatArray:
        assert self._pixels is not None
        return self._pixels
