"""Runs the parts of a model on this machine, with a layer's weights at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.compile.compile_target import prepare_target
from mvlm.compile.model_library import write_library
from mvlm.models.observed import ObservedMobileVLM
from mvlm.runtime.artifact import layout
from mvlm.runtime.device.cpu import CpuDevice, aligned
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.kv_cache import KVCache, Run
from mvlm.runtime.loader import Functions, load_functions
from mvlm.runtime.targets import find_description
from mvlm.runtime.threads import default_threads

Float32Array = npt.NDArray[np.float32]


class Parts:
    """The compiled parts of a model, with the weights of the layers that are run.

    Args:
        model: The parts.
        longest: Positions of a sample at the most: each is run as a whole.
    """

    def __init__(self, model: ObservedMobileVLM, longest: int) -> None:
        self._device = CpuDevice()
        # The system keeps a loaded library when its file is removed. So the folder is there for
        # some seconds only, and an interrupted calibration leaves none behind.
        with tempfile.TemporaryDirectory(prefix="mvlm-calibration-") as folder:
            self._functions = _compiled(model, Path(folder), longest, self._device)
        self._names = [name for name, _ in model.named_parameters()]
        self._shapes = dict(model.named_parameters())
        self._weights: dict[str, Any] = {}
        self._cache = KVCache(model.cache_layout.spec(), longest, self._device)

    def load(self, weights: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
        """Put weights in the place of those of their names."""
        for name, array in weights:
            self._weights[name] = self._device.upload(aligned(array))

    def run(self, part: str, value: npt.NDArray[Any]) -> list[Float32Array]:
        """Call a part.

        Args:
            part: Its name.
            value: Its first argument.

        Returns:
            What it returns: the output, and the inputs of its linear layers.
        """
        arguments = [self._device.upload(aligned(value))]
        if part != "decoder_layer":
            return self._call(part, arguments)
        run = Run(0, value.shape[1], range(self._cache.pages))
        return self._call(part, [*arguments, self._cache.argument([run])])

    def _call(self, part: str, arguments: list[Any]) -> list[Float32Array]:
        weights = tvm_ffi.convert([self._weight(name) for name in self._names])
        found = self._functions[part](*arguments, weights)
        outputs = [found] if hasattr(found, "shape") else list(found)
        return [self._device.download(each) for each in outputs]

    def _weight(self, name: str) -> Any:
        """Return a weight; where none was loaded, no part that is run reads it."""
        if name not in self._weights:
            parameter = self._shapes[name]
            shape = tuple(map(int, parameter.shape))
            self._weights[name] = self._device.empty(shape, str(parameter.dtype))
        return self._weights[name]


def _compiled(model: ObservedMobileVLM, folder: Path, longest: int, device: CpuDevice) -> Functions:
    target = prepare_target(find_description("host"))
    for path in layout.REQUIRED_FILES:
        (folder / path).parent.mkdir(exist_ok=True)
    write_library(model, target, folder, prefill_chunk=longest)
    libraries = [f"{layout.LIBRARIES}/{name}" for name in target.runtime_libraries]
    return load_functions(folder, libraries, device, default_threads())
