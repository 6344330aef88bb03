"""An Armv8.2 device: code is generated for the Snapdragon 888's cores, and run under qemu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from mvlm.compile.targets import SNAPDRAGON_888_CORES
from mvlm.compile.toolchain import Linker
from mvlm.runtime.artifact.layout import MODEL_LIBRARY
from tests.arm import worker
from tests.arm.sysroot import FOLDER
from tests.device import Array

# The oldest of the cores that have what the Snapdragon 888's have. What it has not is an illegal
# instruction here: a test that passes has used nothing newer.
_CPU = "cortex-a76"
_LIBRARIES = "root/lib/aarch64-linux-gnu:root/usr/lib/aarch64-linux-gnu"
_LINKER = Linker(
    (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu"), "zig cc for aarch64"
)


def link(executable: Any, folder: Path) -> None:
    """Make the device's shared library, in the place where an artifact has it."""
    (folder / MODEL_LIBRARY).parent.mkdir(parents=True)

    def linked(output: str, objects: list[str], **_: object) -> None:
        _LINKER.link(Path(output), [Path(name) for name in objects])

    executable.export_library(os.fspath(folder / MODEL_LIBRARY), fcompile=linked)


class ArmDevice:
    """A Python under qemu that calls what is compiled for it.

    Args:
        process: Runs the worker.
        folder: Where libraries and arrays are passed.
    """

    target = tvm.target.Target(dict(SNAPDRAGON_888_CORES))

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


@contextmanager
def emulated(folder: Path) -> Iterator[ArmDevice]:
    """Start the device, and end it."""
    if not FOLDER.exists():
        pytest.fail("no Armv8.2 device is set up: run `make test-arm`")
    environment = {
        "LD_LIBRARY_PATH": _LIBRARIES,
        "PYTHONHOME": "root/usr",
        "PYTHONPATH": "packages",
        "TVM_NUM_THREADS": "2",
    }
    settings = [part for pair in environment.items() for part in ("-E", "=".join(pair))]
    emulator = ["./qemu", "-cpu", _CPU, "-L", "root", *settings, "root/usr/bin/python3"]
    with subprocess.Popen(
        [*emulator, worker.__file__, "libraries/libtvm_runtime.so"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=FOLDER,
    ) as process:
        try:
            yield ArmDevice(process, folder)
        finally:
            process.kill()
