"""mvlm itself, run as the other tools are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mvlm.bench.batch import read_prompts
from mvlm.bench.peers.runner import FloatArray, RgbImage, Setup
from mvlm.bench.report import versions, weight_bytes_per_token
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request
from mvlm.runtime.image import preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID


def open_runner(setup: Setup) -> Ours:
    """Open an artifact, named `artifact` in the setup's files."""
    return Ours(setup)


class Ours:
    """A compiled model, and an engine that answers one prompt at a time, without drafts."""

    def __init__(self, setup: Setup) -> None:
        self._bos = setup.bos
        self._folder = Path(setup.files["artifact"])
        self._model = Model(self._folder, setup.threads)
        context = min(setup.context, self._model.settings.context)
        # Sequences take whole pages.
        spare = (setup.sequences - 1) * self._model.settings.cache.page_size
        capacity = max(setup.context, context) + spare
        self._settings = EngineSettings(context, capacity, speculate="off")
        self._engine = Engine(self._model, self._settings)
        self._tokens: Iterator[int] = iter(())
        self._answers: list[Answer] = []
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
        """Read a prompt into the emptied KV cache, and choose the first token."""
        self._engine.clear()
        self._begin(Request(ids, params=self._greedily(len(ids))))

    def decode(self) -> None:
        """Decode one token."""
        next(self._tokens)

    def begin_batch(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read prompts into the emptied KV cache, and choose the first token of each."""
        self._engine.clear()
        requests = [Request(ids, params=self._greedily(len(ids))) for ids in prompts]
        self._answers = read_prompts(self._engine, requests)

    def decode_batch(self) -> None:
        """Decode a token of every sequence."""
        self._engine.step()

    def set_image(self, image: RgbImage) -> None:
        """Preprocess an image."""
        spec = self._model.settings.image
        assert spec is not None
        self._pixels = preprocess(Image.fromarray(image), spec)

    def encode_image(self) -> None:
        """Run tower and projector; the engine would remember the image."""
        self._model.project(self._model.vision_features(self._shown()))
        self._model.device.synchronize()

    def features(self) -> FloatArray | None:
        """Return the tower's features ``(1, patches, C)``."""
        features: FloatArray = self._model.device.download(
            self._model.vision_features(self._shown())
        )
        return features

    def first_token(self, image: RgbImage, ids: Sequence[int]) -> None:
        """Read an image and a question with a new engine, which knows no image."""
        self._engine = Engine(self._model, self._settings)
        self.set_image(image)
        prompt = [self._bos, IMAGE_TOKEN_ID, *ids]
        params = self._greedily(self._engine.length(prompt))
        self._begin(Request(prompt, [self._shown()], params))

    def _begin(self, request: Request) -> None:
        (answer,) = self._engine.submit(request)
        self._tokens = self._engine.tokens(answer)
        next(self._tokens)

    def _greedily(self, positions: int) -> SamplingParams:
        """Return how to decode, up to the context's end, behind so many positions.

        The last token takes none.
        """
        return SamplingParams(max_tokens=max(1, self._engine.context - positions + 1))

    def _shown(self) -> FloatArray:
        assert self._pixels is not None
        return self._pixels
