"""The shared library of a model's functions: lowered, generated, linked."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.frontend import nn

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.pipeline import TuningLookup, dump_into, lower
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.ops.signatures import FEW
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.kernels import KernelTraffic
from mvlm.runtime.artifact.layout import MOST_FEW_ROWS
from mvlm.runtime.input_file import utf8_folder
from mvlm.runtime.progress import Progress, no_progress

# More than the code of any model takes; the weights are not in it.
_CODE_BYTES = 16 << 20


@dataclass(frozen=True)
class Library:
    """What was compiled.

    Attributes:
        parameters: What its functions take, by name, in this order.
        working_bytes: Memory that they plan for what is in between.
        kernel_traffic: For each function, the calls and memory traffic of its kernels, by name.
    """

    parameters: list[tuple[str, nn.Parameter]]
    working_bytes: int
    kernel_traffic: dict[str, dict[str, KernelTraffic]]


def write_library(
    model: MobileVLM,
    target: CompileTarget,
    folder: Path,
    *,
    prefill_chunk: int,
    tuned: TuningLookup | None = None,
    dump: Path | None = None,
    progress: Progress = no_progress,
) -> Library:
    """Compile a model's functions into a folder, beside the runtime libraries that they need.

    Args:
        model: What exports them.
        target: What to compile for.
        folder: An artifact's; its folders are there.
        prefill_chunk: Positions that one call takes at the most.
        tuned: Looks up tuned schedules; every function gets its default if None.
        dump: A folder for the module after each phase, or None.
        progress: Called as the work proceeds.

    Raises:
        OSError: There is no room for the code.
    """
    # A Ctrl-C within one of our passes goes through TVM, which keeps the types that it knows.
    tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)
    steps = ["graph", "kernels", "fuse", "schedule", "lower", "code", "link"]

    def entered(step: str) -> None:
        progress(f"compile: {step}", steps.index(step), len(steps))

    module, parameters = model.export(target.tvm)
    bounds = {"n": prefill_chunk, FEW: MOST_FEW_ROWS}
    lowered = lower(module, target.tvm, target.kernels, bounds, entered, dump_into(dump), tuned)
    entered("code")
    with tvm.transform.PassContext(opt_level=3):
        executable = relax.build(lowered.module, target.tvm, relax_pipeline=None)

    def link(output: str, objects: list[str], **_: object) -> None:
        entered("link")
        target.linker.link_files(output, objects)

    # Beside the artifact, where what a killed process leaves behind is swept up.
    with (
        utf8_folder(folder.parent) as parent,
        tempfile.TemporaryDirectory(dir=parent) as workspace,
    ):
        _require_room(Path(workspace))
        library = parent / folder.name / layout.MODEL_LIBRARY
        executable.export_library(os.fspath(library), fcompile=link, workspace_dir=workspace)
    for name, data in target.runtime_libraries.items():
        (folder / layout.LIBRARIES / name).write_bytes(data)
    progress("compile: link", len(steps), len(steps))
    return Library(parameters, lowered.working_bytes, lowered.kernel_traffic)


def _require_room(folder: Path) -> None:
    """Raise OSError where no code could be written: LLVM would end the process instead."""
    with (folder / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _CODE_BYTES)
    (folder / "room").unlink()
