"""A session: one sequence of a model, and prefill that reuses the prefix in its KV cache.

The session keeps, for every position of its KV cache, the key of what was computed there: a token's
id, or an image's digest and row. Given a whole prompt it finds the longest prefix that the cache
already holds, truncates the cache to it and prefills the rest. A conversation costs its new turn
only, and a prompt that differs from some position on costs the positions from there.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from mvlm.runtime.device.device import DeviceArray
from mvlm.runtime.errors import ContextError, PromptError
from mvlm.runtime.model import Model
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

FloatArray = npt.NDArray[np.float32]

_MAX_CACHED_IMAGES = 8


@dataclass(frozen=True)
class ImageEmbedding:
    """An image as the decoder's input.

    Attributes:
        digest: The sha256 of its pixels; equal images share cache positions.
        embeddings: ``(1, image_tokens, hidden)`` float32, in the device's memory.
    """

    digest: bytes
    embeddings: DeviceArray = field(repr=False)

    @property
    def positions(self) -> int:
        """Positions of the sequence that it takes."""
        count: int = self.embeddings.shape[1]
        return count


@dataclass
class Trace:
    """Every stage's numbers, for comparison with another implementation.

    The arrays are float32, but for the ids; see the design of ``chat --dump``.

    Attributes:
        pixel_values: ``(images, 3, S, S)``, one entry an image.
        vision_features: ``(images, patches, C)``.
        projector_output: ``(images, image_tokens, hidden)``.
        prompt_ids: ``(ids,)`` int64, an image as -200.
        prefill_logits: ``(positions, vocabulary)``.
        step_logits: ``(tokens, vocabulary)``: the logits that each answered token was chosen from.
    """

    pixel_values: list[FloatArray] = field(default_factory=list)
    vision_features: list[FloatArray] = field(default_factory=list)
    projector_output: list[FloatArray] = field(default_factory=list)
    prompt_ids: Sequence[int] = ()
    prefill_logits: FloatArray | None = None
    step_logits: list[FloatArray] = field(default_factory=list)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the recorded stages as arrays by name; a stage that did not run is absent."""
        stages: dict[str, list[FloatArray]] = {
            "pixel_values": self.pixel_values,
            "vision_features": self.vision_features,
            "projector_output": self.projector_output,
            "step_logits": self.step_logits,
        }
        arrays: dict[str, npt.NDArray[np.generic]] = {
            name: np.concatenate(parts) for name, parts in stages.items() if parts
        }
        arrays["prompt_ids"] = np.asarray(self.prompt_ids, np.int64)
        if self.prefill_logits is not None:
            arrays["prefill_logits"] = self.prefill_logits
        return arrays


@dataclass(frozen=True)
class PrefillResult:
    """The result of prefilling a prompt.

    Attributes:
        logits: ``(vocabulary,)`` float32 of the last position.
        positions: Positions that the prompt takes.
        computed: Positions that were not in the cache before.
        seconds: Time that computing those took.
    """

    logits: FloatArray = field(repr=False)
    positions: int
    computed: int
    seconds: float


class Session:
    """One sequence of a model.

    Args:
        model: The loaded artifact.
        capacity: Positions of the KV cache; the model's context if None.
    """

    def __init__(self, model: Model, capacity: int | None = None) -> None:
        self.model = model
        self.cache = model.new_cache(capacity)
        self.vision_seconds = 0.0  # spent on images since the session began
        self._cached: list[Hashable] = []
        self._images: OrderedDict[bytes, ImageEmbedding] = OrderedDict()

    def encode_image(self, pixels: FloatArray, trace: Trace | None = None) -> ImageEmbedding:
        """Encode an image ``(1, 3, S, S)`` float32, or take its embeddings from the cache.

        Raises:
            PromptError: The model reads text only, or the pixels are misshapen.
        """
        digest = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
        known = self._images.get(digest)
        if known and trace is None:
            self._images.move_to_end(digest)
            return known
        device = self.model.device
        device.synchronize()
        start = time.perf_counter()
        features = self.model.vision_features(pixels)
        embeddings = self.model.project(features)
        device.synchronize()
        self.vision_seconds += time.perf_counter() - start
        if trace:
            trace.pixel_values.append(pixels)
            trace.vision_features.append(device.download(features))
            trace.projector_output.append(device.download(embeddings))
        image = ImageEmbedding(digest, embeddings)
        self._images[digest] = image
        while len(self._images) > _MAX_CACHED_IMAGES:
            self._images.popitem(last=False)
        return image

    @property
    def is_full(self) -> bool:
        """Whether the KV cache has no position left."""
        return self.cache.length >= self.cache.capacity

    def length(self, ids: Sequence[int]) -> int:
        """Count the positions of a prompt's ids, in which -200 stands for an image."""
        return len(ids) + ids.count(IMAGE_TOKEN_ID) * (self.model.settings.image_tokens - 1)

    def prefill(
        self,
        ids: Sequence[int],
        images: Sequence[ImageEmbedding] = (),
        trace: Trace | None = None,
    ) -> PrefillResult:
        """Compute a whole prompt from the sequence's first position, but for what the cache holds.

        Args:
            ids: The prompt, with -200 in the place of each image.
            images: As many as there are places.
            trace: Records the prompt and the logits of all its positions; then nothing is taken
                from the cache.

        Raises:
            PromptError: The prompt is empty, or the images do not match their places.
            ContextError: The prompt does not fit; the session is as it was then.
        """
        keys = self._keys(ids, images)
        if len(keys) > self.cache.capacity:
            raise ContextError(
                "the prompt does not fit into the context",
                expected=f"at most {self.cache.capacity} positions",
                found=len(keys),
            )
        self.model.device.synchronize()
        start = time.perf_counter()
        kept = 0 if trace else _common_prefix(self._cached, keys[:-1])
        del self._cached[kept:]
        rest = self.model.device.rows(self._embeddings(ids, images), kept, len(keys))
        with self._appending(keys[kept:]):
            logits = self.model.prefill(rest, self.cache, all_logits=trace is not None)
        if trace:
            trace.prompt_ids, trace.prefill_logits = tuple(ids), logits
        seconds = time.perf_counter() - start  # the logits are downloaded, so all work is done
        return PrefillResult(logits[-1], len(keys), len(keys) - kept, seconds)

    def decode(self, token: int) -> FloatArray:
        """Append one token; the next one's logits ``(vocabulary,)``.

        Raises:
            ContextError: The cache is full.
        """
        with self._appending([token]):
            logits = self.model.decode(token, self.cache)
        last: FloatArray = logits[-1]
        return last

    def clear(self) -> None:
        """Drop all positions, but keep the encoded images."""
        self._cached.clear()
        self.cache.clear()

    @contextmanager
    def _appending(self, keys: Sequence[Hashable]) -> Iterator[None]:
        """Name the positions that the block appends to the cache, if it ends without an error."""
        # A call that was interrupted halfway filled some layers' positions and not others'.
        self.cache.truncate(len(self._cached))
        yield
        self._cached += keys

    def _keys(self, ids: Sequence[int], images: Sequence[ImageEmbedding]) -> list[Hashable]:
        """Name every position: a token by its id, an image's by its digest and their number."""
        places = ids.count(IMAGE_TOKEN_ID)
        if not ids or places != len(images):
            raise PromptError(
                "the prompt",
                expected=f"ids with {len(images)} images",
                found=f"{places} places",
            )
        keys: list[Hashable] = []
        shown = iter(images)
        for token in ids:
            if token == IMAGE_TOKEN_ID:
                image = next(shown)
                keys += [(image.digest, index) for index in range(image.positions)]
            else:
                keys.append(token)
        return keys

    def _embeddings(self, ids: Sequence[int], images: Sequence[ImageEmbedding]) -> DeviceArray:
        """Splice the images' embeddings between those of the text: ``(1, positions, hidden)``."""
        device, texts = self.model.device, [token for token in ids if token != IMAGE_TOKEN_ID]
        rows = self.model.embed(texts) if texts else None
        parts, begin, shown = [], 0, iter(images)
        for run in _runs(ids):
            if run:
                parts.append(device.rows(rows, begin, begin + run))
                begin += run
            else:
                parts.append(next(shown).embeddings)
        return device.concatenate(parts)


def _runs(ids: Sequence[int]) -> list[int]:
    """Lengths of the runs of text, with 0 for each image between them."""
    runs: list[int] = []
    for token in ids:
        if token == IMAGE_TOKEN_ID:
            runs.append(0)
        elif runs and runs[-1]:
            runs[-1] += 1
        else:
            runs.append(1)
    return runs


def _common_prefix(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
