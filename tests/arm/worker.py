"""Runs under qemu, in the arm64 Python: calls what it is told to, with arrays from a file.

It has NumPy, tvm_ffi and our own runtime, as a device has. A request is a line of JSON on its
standard input: the folder of a library as an artifact has it, whether that holds a graph, the
arguments' file, and where they are to be written after the call, or what a graph returned. The
answer is a line too: null, or what went wrong.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.runtime.artifact.layout import MODEL_LIBRARY, RUNTIME_LIBRARY
from mvlm.runtime.device.cpu import CpuDevice, aligned
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.loader import load_functions, load_runtime

_THREADS = 2


@cache
def _opened(folder: Path, is_graph: bool) -> Any:
    if is_graph:
        return load_functions(folder, [RUNTIME_LIBRARY], CpuDevice(), _THREADS)["forward"]
    return tvm_ffi.load_module(folder / MODEL_LIBRARY)["main"]


def _answer(folder: str, is_graph: bool, arguments: str, results: str) -> None:
    with np.load(arguments) as file:
        arrays = [aligned(file[f"arr_{index}"]) for index in range(len(file.files))]
    returned = _opened(Path(folder), is_graph)(*map(tvm_ffi.from_dlpack, arrays))
    np.savez(results, *([np.from_dlpack(returned)] if is_graph else arrays))


def main() -> None:
    """Answer until the input ends."""
    load_runtime(Path(sys.argv[1]))
    print(json.dumps(None), flush=True)
    for line in sys.stdin:
        try:
            _answer(**json.loads(line))
            print(json.dumps(None), flush=True)
        except Exception as error:
            print(json.dumps(repr(error)), flush=True)


if __name__ == "__main__":
    main()
