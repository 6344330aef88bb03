"""Runs under qemu: loads a kernel, says where its code lies, and calls it so many times."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mvlm.runtime.device.cpu import aligned
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.loader import load_runtime
from mvlm.runtime.threads import ThreadPool


def _place(library: str) -> str:
    """Return the first and the last address of the library's code."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(library) and " r-xp " in line:
            return line.split()[0].replace("-", " ")
    raise LookupError(library)


def main() -> None:
    """Call it with the arrays of a file."""
    runtime, library, arrays, calls = sys.argv[1:]
    load_runtime(Path(runtime))
    function = tvm_ffi.load_module(library)["main"]
    ThreadPool(Path(library), 1)
    with np.load(arrays) as file:
        held = [aligned(file[f"arr_{index}"]) for index in range(len(file.files))]
    tensors = [tvm_ffi.from_dlpack(array) for array in held]
    for _ in range(int(calls)):
        function(*tensors)
    print(_place(library))


if __name__ == "__main__":
    main()
