"""A loaded model: the artifact's functions with its weights, on the artifact's device.

Pixels and token ids go in as NumPy arrays or numbers, and logits come out as NumPy arrays. What is
in between, features and embeddings, stays in the device's memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.artifact import Manifest, map_weights, verify_artifact
from mvlm.runtime.artifact.layout import tower_part, whole_function
from mvlm.runtime.artifact.verify import check_memory
from mvlm.runtime.device.device import Device, DeviceArray
from mvlm.runtime.device.find import find_device
from mvlm.runtime.errors import PromptError
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.kv_cache import KVCache, Run
from mvlm.runtime.loader import Functions, load_functions
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
        device: Where the kernels run; the one that the artifact names if None.

    Raises:
        ArtifactError: The artifact is damaged or does not belong here.
    """

    def __init__(
        self, folder: str | Path, threads: int | None = None, device: Device | None = None
    ) -> None:
        self.folder = folder = Path(folder)
        self.manifest: Manifest = verify_artifact(folder)
        self.device = device or find_device(self.manifest.target.device.kind)
        check_memory(self.manifest, self.device.available_memory())
        self.settings: ChatSettings = read_settings(folder)
        self.threads = default_threads() if threads is None else threads
        self._functions: Functions = load_functions(
            folder, self.manifest.abi.load_order, self.device, self.threads
        )
        self._profiler: Profiler | None = None
        self._weights = tvm_ffi.convert([*map(self.device.upload, map_weights(folder))])
        self._token = self.device.staging((1, 1), "int32")

    def new_cache(self, capacity: int | None = None) -> KVCache:
        """Create a KV cache.

        Args:
            capacity: Positions that fit, of all sequences; the model's context if None.

        Raises:
            ContextError: There is too little memory for them.
        """
        wanted = self.settings.context if capacity is None else capacity
        return KVCache(self.settings.cache, wanted, self.device)

    def profiler(self) -> Profiler:
        """Time every kernel from now on; each call then takes some microseconds more."""
        if self._profiler is None:
            self._profiler = Profiler(self._clock)
            self._functions.set_instrument(self._profiler.record)
        return self._profiler

    def _clock(self) -> float:
        self.device.synchronize()
        return time.perf_counter()

    def vision_features(self, pixels: FloatArray) -> DeviceArray:
        """Encode pixels ``(1, 3, S, S)`` into patch features ``(1, patches, C)`` float32."""
        *_, features = self.vision_steps(pixels)
        return features

    def vision_steps(self, pixels: FloatArray) -> Iterator[DeviceArray]:
        """Encode pixels ``(1, 3, S, S)`` a part of the tower at a time.

        Yields:
            The states behind each part; at last the patch features ``(1, patches, C)`` float32.
        """
        states = self.device.upload(self._checked(pixels))
        for part in count():
            name = tower_part(part)
            if name not in self._functions:
                break
            states = self._call(name, states)
            yield states

    def project(self, features: DeviceArray) -> DeviceArray:
        """Project patch features to embeddings ``(1, image_tokens, hidden)`` float32."""
        return self._call("projector", features)

    def embed(self, ids: Sequence[int]) -> DeviceArray:
        """Look up token embeddings: ``(1, n, hidden)`` float32.

        Raises:
            PromptError: There is none, or one outside the vocabulary: the compiled lookup does not
                check.
        """
        array = np.asarray(ids, np.int64)
        if array.size == 0 or array.min() < 0 or array.max() >= self.settings.vocabulary:
            raise self.token_error()
        # Memory for one call is planned for a chunk of prefill at the most.
        chunk = self.settings.prefill_chunk
        parts = (array[start : start + chunk] for start in range(0, array.size, chunk))
        uploaded = (self.device.upload(part.astype(np.int32)[None]) for part in parts)
        return self.device.concatenate([self._call("embed", each) for each in uploaded])

    def prefill(
        self,
        embeddings: DeviceArray,
        cache: KVCache,
        runs: Sequence[Run],
        wanted: Sequence[int] | None = None,
    ) -> FloatArray:
        """Compute rows of some sequences, whose keys and values go into the cache.

        Args:
            embeddings: ``(1, n, hidden)``, at most `prefill_chunk` rows.
            cache: The KV cache.
            runs: Where the rows lie in it.
            wanted: The indices of the rows whose logits are returned, at most 16; all if None.

        Returns:
            Logits ``(k, vocabulary)`` float32 of the wanted rows.
        """
        argument = cache.argument(runs)
        if wanted is None:
            logits = self._call("prefill_all", embeddings, argument)
        else:
            indices = self.device.upload(np.asarray(wanted, np.int32))
            logits = self._call("prefill", embeddings, indices, argument)
        downloaded: FloatArray = self.device.download(logits)[0]
        return downloaded

    def decode(self, ids: Sequence[int], cache: KVCache, runs: Sequence[Run]) -> FloatArray:
        """Compute up to 16 tokens of some sequences; the same as their rows of :meth:`prefill`.

        Args:
            ids: The tokens.
            cache: The KV cache.
            runs: Where they lie in it.

        Returns:
            Logits ``(k, vocabulary)`` float32 of the tokens behind each.

        Raises:
            PromptError: An id is outside the vocabulary.
        """
        if not all(0 <= token < self.settings.vocabulary for token in ids):
            raise self.token_error()
        if len(ids) == 1:
            self._token.host[0, 0] = ids[0]
            self._token.commit()
            name, tokens = "decode", self._token.array
        else:
            name, tokens = "decode_few", self.device.upload(np.asarray([ids], np.int32))
        logits = self._call(name, tokens, cache.argument(runs))
        downloaded: FloatArray = self.device.download(logits)[0]
        return downloaded

    def token_error(self) -> PromptError:
        """Return the error of ids that are not the vocabulary's."""
        return PromptError(
            "token ids", expected=f"0 to {self.settings.vocabulary - 1}", found="others"
        )

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

    def _call(self, name: str, *arguments: Any) -> DeviceArray:
        if self._profiler:
            self._profiler.enter(whole_function(name))
        return self._functions[name](*arguments, self._weights)
