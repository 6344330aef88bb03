"""What compiling a real size for a device costs, and what its kernels are made of.

``python -m mvlm.bench.studies.cross_compile CHECKPOINT [--target NAME] [--write]`` compiles in a
process of its own, measures time and memory, and counts each kernel's instructions in assembly.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from mvlm.bench.docs_table import write_table
from mvlm.bench.studies.assembly import Instruction, computations
from mvlm.bench.studies.footprint import folder_bytes, run_mvlm
from mvlm.compile.compile_target import prepare_target
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.pipeline import lower
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.ops.signatures import FEW
from mvlm.runtime.artifact.kernels import KernelTraffic
from mvlm.runtime.artifact.layout import MOST_FEW_ROWS

DOCUMENT = Path("docs/arm.md")
# Of integers, several of which one instruction multiplies; the beginnings of their names.
_PRODUCTS = ("sdot", "udot", "smull", "smlal", "vpdp", "vpmadd")
# Of x86-64 and aarch64: `b.ne` and `cbnz` begin so, too.
_BRANCHES = re.compile(r"b|b\..*|blr?|br|[ct]bn?z|ret|j.*|call.*")


@dataclass(frozen=True)
class CompileCost:
    """What compiling costs.

    Attributes:
        seconds: Wall time of `mvlm compile`.
        peak_bytes: Its largest resident memory.
        artifact_bytes: Of the artifact.
        code_bytes: Of the code in it.
    """

    seconds: float
    peak_bytes: int
    artifact_bytes: int
    code_bytes: int


@dataclass(frozen=True)
class InstructionMix:
    """A kernel's instructions, as they stand in its code: those of a loop once.

    Attributes:
        kernel: Its name.
        calls: How often one call of each function calls it, by the function's name.
        counts: Instructions by kind; checks of arguments are left out.
    """

    kernel: str
    calls: Mapping[str, int]
    counts: Mapping[str, int]


def measure_cost(checkpoint: Path, target: str) -> CompileCost:
    """Compile a checkpoint for a target in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        artifact = Path(name) / "artifact"
        begin = time.perf_counter()
        peak = run_mvlm("compile", str(checkpoint), "--target", target, "-o", str(artifact))
        seconds = time.perf_counter() - begin
        library = (artifact / "lib" / "model.so").stat().st_size
        return CompileCost(seconds, peak, folder_bytes(artifact), library)


def measure_mixes(job: CompileJob) -> list[InstructionMix]:
    """Count the instructions of every kernel that a job's functions call, the largest first."""
    target = prepare_target(job.target, job.platform).tvm
    module, _ = MobileVLM(job.config, job.quantization, job.layout).export(target)
    lowered = lower(
        module, target, job.target.kernels, {"n": job.prefill_chunk, FEW: MOST_FEW_ROWS}
    )
    with tvm.transform.PassContext(opt_level=3):
        executable = relax.build(lowered.module, target, relax_pipeline=None)
    code = computations(_assembly(executable))
    mixes = [
        InstructionMix(kernel, _calls(kernel, lowered.kernel_traffic), Counter(map(_kind, body)))
        for kernel, body in code.items()
    ]
    called = [mix for mix in mixes if mix.calls]
    return sorted(called, key=lambda mix: -sum(mix.counts.values()))


def _assembly(executable: relax.VMExecutable) -> str:
    source: str = executable.mod.imports[0].inspect_source("asm")
    return source


def _calls(kernel: str, traffic: Mapping[str, Mapping[str, KernelTraffic]]) -> dict[str, int]:
    return {name: of[kernel].calls for name, of in traffic.items() if kernel in of}


def _kind(instruction: Instruction) -> str:
    mnemonic = instruction.mnemonic
    if mnemonic.startswith(_PRODUCTS):
        return "products"
    if instruction.loads or instruction.stores:
        return "loads" if instruction.loads else "stores"
    if instruction.is_vector:
        return "vector"
    return "branches" if _BRANCHES.fullmatch(mnemonic) else "scalar"


KINDS = ("products", "vector", "loads", "stores", "branches", "scalar")
_FUNCTIONS = ("decode", "prefill", "vision_tower", "projector")


def table(model: str, cost: CompileCost, mixes: Sequence[InstructionMix]) -> str:
    """Write both as Markdown."""
    peak, artifact = cost.peak_bytes / 1e9, cost.artifact_bytes / 1e9
    lines = [
        f"Compiling {model} took {cost.seconds:.0f} s and {peak:.2f} GB of peak memory. The",
        f"artifact has {artifact:.2f} GB, of which {cost.code_bytes / 1e6:.1f} MB are code.",
        "",
        f"| kernel | called by | {' | '.join(KINDS)} |",
        "|---|---|" + "--:|" * len(KINDS),
    ]
    for mix in mixes:
        callers = [f"{name} {mix.calls[name]}x" for name in _FUNCTIONS if name in mix.calls]
        if callers:
            cells = [f"{mix.counts.get(kind, 0):,}" for kind in KINDS]
            lines.append(f"| `{mix.kernel}` | {', '.join(callers)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print the table or put it into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.cross_compile", description=__doc__
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--target", default="snapdragon-888-cpu")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    job = plan_job(options.checkpoint, target=options.target)
    cost = measure_cost(options.checkpoint, options.target)
    text = table(job.name, cost, measure_mixes(job))
    print(text)
    if options.write:
        write_table(DOCUMENT, "cross-compile", text)


if __name__ == "__main__":
    main()
