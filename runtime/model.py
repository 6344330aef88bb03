"""A loaded model: the artifact's functions with its weights, NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.aligned import aligned
from mvlm.runtime.artifact import Manifest, map_weights, verify_artifact
from mvlm.runtime.artifact.verify import check_memory
from mvlm.runtime.errors import PromptError, UsageError
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.kv_cache import KVCache
from mvlm.runtime.loader import Functions, load_functions
from mvlm.runtime.machine import available_memory_bytes, read_machine
from mvlm.runtime.profiler import Profiler
from mvlm.runtime.settings import ChatSettings, read_settings
from mvlm.runtime.threads import default_threads

FloatArray = npt.NDArray[np.float32]


class Model:
    """The functions of one artifact.

    Args:
        folder: The artifact; it is verified before anything of it is loaded.
        threads: Threads for the kernels; one for each fast core that this process may use if None
            (`default_threads`).

    Raises:
        ArtifactError: The artifact is damaged or does not belong here.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        machine = read_machine()
        self.folder = folder
        self.manifest: Manifest = verify_artifact(folder, machine)
        check_memory(self.manifest, available_memory_bytes())
        self.settings: ChatSettings = read_settings(folder)
        self.threads = default_threads() if threads is None else threads
        self._functions: Functions = load_functions(folder, self.threads)
        self._profiler: Profiler | None = None
        self._arrays = map_weights(folder)
        self._weights = tvm_ffi.convert([tvm_ffi.from_dlpack(array) for array in self._arrays])

    def new_cache(self, capacity: int | None = None) -> KVCache:
        """Create an empty KV cache.

        Args:
            capacity: Positions that fit; the model's context if None.

        Raises:
            UsageError: The model was not trained for so many positions.
            ContextError: There is too little memory for them.
        """
        settings = self.settings
        wanted = settings.context if capacity is None else capacity
        if not 1 <= wanted <= settings.context:
            raise UsageError("context", expected=f"1 to {settings.context}", found=wanted)
        return KVCache(settings.cache, wanted)

    def profiler(self) -> Profiler:
        """Time every kernel from now on; each call then takes some microseconds more."""
        if self._profiler is None:
            self._profiler = Profiler()
            self._functions.set_instrument(self._profiler.record)
        return self._profiler

    def vision_features(self, pixels: FloatArray) -> FloatArray:
        """Encode pixels ``(1, 3, S, S)`` into patch features ``(1, patches, C)``."""
        return self._call("vision_tower", self._checked(pixels))

    def project(self, features: FloatArray) -> FloatArray:
        """Project patch features to embeddings ``(1, image_tokens, hidden)``."""
        return self._call("projector", features)

    def embed(self, ids: Sequence[int]) -> FloatArray:
        """Look up token embeddings: ``(1, n, hidden)``.

        Raises:
            PromptError: There is none, or one outside the vocabulary: the compiled lookup does not
                check.
        """
        array = self._checked_ids(ids)
        # Memory for one call is planned for a chunk of prefill at the most.
        chunk = self.settings.prefill_chunk
        parts = (array[start : start + chunk] for start in range(0, array.size, chunk))
        return np.concatenate(
            [self._call("embed", part.astype(np.int32)[None]) for part in parts], axis=1
        )

    def prefill(
        self, embeddings: FloatArray, cache: KVCache, *, all_logits: bool = False
    ) -> FloatArray:
        """Append embeddings ``(1, n, hidden)``, in chunks, to the sequence in the cache.

        Returns:
            Logits ``(1, vocabulary)`` of the last position, or of all ``(n, vocabulary)``.

        Raises:
            ContextError: The cache is too small; nothing has been appended then.
        """
        count, chunk = embeddings.shape[1], self.settings.prefill_chunk
        name = "prefill_all" if all_logits else "prefill"
        cache.reserve(count)
        rows = []
        for start in range(0, count, chunk):
            part = np.ascontiguousarray(embeddings[:, start : start + chunk])
            with cache.appending(part.shape[1]) as pages:
                rows.append(self._call(name, part, pages)[0])
        return np.concatenate(rows) if all_logits else rows[-1]

    def decode(self, token: int, cache: KVCache) -> FloatArray:
        """Append one token and return the next one's logits ``(1, vocabulary)``.

        Raises:
            PromptError: The id is outside the vocabulary.
            ContextError: The cache is full.
        """
        ids = self._checked_ids([token])
        with cache.appending(1) as pages:
            logits: FloatArray = self._call("decode", ids.astype(np.int32)[None], pages)[0]
        return logits

    def _checked_ids(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        array = np.asarray(ids, np.int64)
        if array.size == 0 or array.min() < 0 or array.max() >= self.settings.vocabulary:
            raise PromptError(
                "token ids", expected=f"0 to {self.settings.vocabulary - 1}", found="others"
            )
        return array

    def _checked(self, pixels: FloatArray) -> FloatArray:
        image = self.settings.image
        if image is None:
            raise PromptError(
                "the model reads text only", fix="Leave the image out, or use a MobileVLM."
            )
        wanted = (1, 3, image.size, image.size)
        if pixels.shape != wanted or pixels.dtype != np.float32:
            raise PromptError(
                "pixels", expected=f"float32 {wanted}", found=f"{pixels.dtype} {pixels.shape}"
            )
        return np.ascontiguousarray(pixels)

    def _call(self, name: str, argument: npt.NDArray[Any], *rest: Any) -> FloatArray:
        tensor = tvm_ffi.from_dlpack(aligned(argument))
        if self._profiler:
            self._profiler.enter(name)
        result = self._functions[name](tensor, *rest, self._weights)
        # The allocator hands the tensor's memory out again once the tensor is gone: copy.
        array: FloatArray = np.from_dlpack(result).astype(np.float32, copy=True)
        return array
