"""Counts the instructions that decoding executes on the emulated device, one by one.

``python -m tests.arm.counting --write`` puts what it finds into docs/arm.md. The emulator is told
to take one instruction at a time, and to write down each that lies within the model's library. What
loading the library executes is taken away: two runs differ by a call of the kernel.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import tirx

from mvlm.bench.docs_table import write_table
from mvlm.bench.studies.instructions import DOCUMENT, PACKED_SCHEMES, decode_kernel
from mvlm.compile.tuning.task import parameter_types
from mvlm.models.quantization import SCHEMES
from mvlm.runtime.artifact.layout import MODEL_LIBRARY
from mvlm.schedules.cpu.panels import panel_layout
from tests.arm import counting_worker
from tests.arm.device import KRYO, link, runtime_library
from tests.arm.emulator import environment
from tests.arm.sysroot import FOLDER
from tests.device import described

WIDTH, FEATURES = 2048, 512


@dataclass(frozen=True)
class Count:
    """What one call of the kernel that decodes executes.

    Attributes:
        instructions: All of them, of one thread.
        weight_bytes: Levels and scales that it multiplies.
    """

    instructions: int
    weight_bytes: int

    @property
    def per_byte(self) -> float:
        """Instructions for a byte of weights."""
        return self.instructions / self.weight_bytes


def count(folder: Path) -> Count:
    """Count what the product of a row with 4-bit weights, 2048 x 512, executes.

    Args:
        folder: Where the library and what the emulator writes go.
    """
    target = described(KRYO.name)
    kernel = decode_kernel(target, WIDTH, FEATURES).with_attr("global_symbol", "main")
    link(tvm.compile(tvm.IRModule({"main": kernel}), target=target), folder)
    arrays = [_of_one_row(each) for each in parameter_types(kernel)]
    np.savez(folder / "arrays.npz", *arrays)
    worker = [counting_worker.__file__, runtime_library(folder), folder / MODEL_LIBRARY]
    command = [FOLDER / "python", *worker, folder / "arrays.npz"]
    place = _run(command, 0, "")
    once, twice = (_executed(command, calls, place, folder) for calls in (1, 2))
    weights = panel_layout(SCHEMES[PACKED_SCHEMES[0]].weights).arrays(WIDTH, FEATURES).values()
    sizes = (math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in weights)
    return Count(twice - once, sum(sizes))


def _of_one_row(buffer: Any) -> npt.NDArray[Any]:
    """Return an array for a kernel's parameter, whose number of rows is a variable."""
    shape = [1 if isinstance(extent, tirx.Var) else int(extent) for extent in buffer.shape]
    return np.ones(shape, str(buffer.dtype))


def _executed(
    command: Sequence[str | Path], calls: int, place: tuple[int, int], folder: Path
) -> int:
    """Count the instructions of the library's that are executed with so many calls."""
    log, (begin, end) = folder / f"{calls}.log", place
    options = f"-singlestep -d exec,nochain -D {log} -dfilter {begin:#x}+{end - begin:#x}"
    assert _run(command, calls, options) == place, "the library was loaded elsewhere"
    return log.read_bytes().count(b"Trace ")


def _run(command: Sequence[str | Path], calls: int, options: str) -> tuple[int, int]:
    """Run the worker, and return where it found the library's code."""
    done = subprocess.run(
        [*command, str(calls)],
        env=environment(options=options) | {"TVM_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    begin, end = done.stdout.split()
    return int(begin, 16), int(end, 16)


def table(found: Count) -> str:
    """Write what was counted as Markdown."""
    return (
        f"| counted in emulation | one row times {WIDTH} x {FEATURES} |\n|---|--:|\n"
        f"| instructions executed | {found.instructions:,} |\n"
        f"| weight bytes | {found.weight_bytes:,} |\n"
        f"| instructions per byte | {found.per_byte:.3f} |\n"
    )


def main() -> None:
    """Print the table, or put it into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm.counting", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(count(Path(folder)))
    print(text)
    if options.write:
        write_table(DOCUMENT, "counted", text)


if __name__ == "__main__":
    main()
