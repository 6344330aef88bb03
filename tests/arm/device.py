"""An Armv8.2 device: code is generated for the Snapdragon 888's cores, and run under qemu."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvlm.compile.toolchain import find_linker, find_runtime_library
from mvlm.runtime.artifact.layout import MODEL_LIBRARY
from mvlm.runtime.targets import known_targets
from mvlm.runtime.targets.platforms import PLATFORMS
from tests.arm import worker
from tests.arm.emulator import environment, fetched_toolchain
from tests.arm.sysroot import FOLDER
from tests.device import Array, described

KRYO = known_targets()["snapdragon-888-cpu"]


def link(executable: Any, folder: Path) -> None:
    """Make the device's shared library, in the place where an artifact has it."""
    (folder / MODEL_LIBRARY).parent.mkdir(parents=True)
    linker = find_linker("aarch64", PLATFORMS["linux"], KRYO.needs)
    executable.export_library(os.fspath(folder / MODEL_LIBRARY), fcompile=linker.link_files)


class ArmDevice:
    """A Python under qemu that calls what is compiled for it.

    Args:
        process: Runs the worker.
        folder: Where libraries and arrays are passed.
    """

    target = described(KRYO.name)

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder, self._numbers = process, folder, count()
        self._hear()

    def function(self, executable: Any) -> Callable[..., None]:
        """Return the compiled function `main`; its tensors are written to as on this machine."""
        library = self._link(executable)

        def call(*tensors: Any) -> None:
            results = self._call(library, tensors, is_graph=False)
            for tensor, result in zip(tensors, results, strict=True):
                if result.size:
                    tensor.copyfrom(result)

        return call

    def graph(self, executable: Any) -> Callable[..., Array]:
        """Return the function `forward` of a Relax executable."""
        library = self._link(executable)
        return lambda *tensors: self._call(library, tensors, is_graph=True)[0]

    def _link(self, executable: Any) -> Path:
        folder = self._folder / str(next(self._numbers))
        link(executable, folder)
        return folder

    def _call(self, library: Path, tensors: Sequence[Any], is_graph: bool) -> list[Array]:
        arguments, results = (self._folder / f"{name}.npz" for name in ("arguments", "results"))
        np.savez(arguments, *(tensor.numpy() for tensor in tensors))
        self._say(
            folder=os.fspath(library),
            is_graph=is_graph,
            arguments=os.fspath(arguments),
            results=os.fspath(results),
        )
        self._hear()
        with np.load(results) as file:
            return [file[f"arr_{index}"] for index in range(len(file.files))]

    def _say(self, **request: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> None:
        assert self._process.stdout
        line = self._process.stdout.readline()
        problem = json.loads(line) if line else f"it ended with {self._process.wait()}"
        if problem is not None:
            pytest.fail(f"on the emulated device: {problem}")


def runtime_library(folder: Path) -> Path:
    """Write the device's runtime, and return its file."""
    path = folder / "libtvm_runtime.so"
    with fetched_toolchain():
        path.write_bytes(find_runtime_library("aarch64", PLATFORMS["linux"]))
    return path


@contextmanager
def emulated(folder: Path) -> Iterator[ArmDevice]:
    """Start the device, and end it."""
    runtime = runtime_library(folder)
    with subprocess.Popen(
        [FOLDER / "python", worker.__file__, runtime],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield ArmDevice(process, folder)
        finally:
            process.kill()
