"""Instruction counts of decoding's hot loop: ``python -m mvlm.bench.studies.instructions``.

Nearly all of a token's time goes into one loop: a row of 8-bit activations times a panel of 4-bit
or 3-bit weights, a group of 32 for 16 features, or half of them, at a time. Here that loop is
compiled for several CPUs, none of which need be this one, and its instructions are counted in
LLVM's assembly.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.target import Target

from mvlm.bench.docs_table import write_table
from mvlm.bench.studies import roofline
from mvlm.bench.studies.assembly import Instruction, innermost_loop
from mvlm.compile.compile_target import tvm_options
from mvlm.models.ops.linear import linear_signature
from mvlm.models.ops.signatures import Signature
from mvlm.models.quantization import GROUP_SIZE, SCHEMES
from mvlm.models.weight_layout import LinearFormat
from mvlm.runtime.targets import known_targets
from mvlm.schedules.cpu.instructions import find_instructions
from mvlm.schedules.cpu.panels import PANELS
from mvlm.schedules.registry import find_kernels

DOCUMENT = Path("docs/arm.md")
KRYO = known_targets()["snapdragon-888-cpu"]

# Of MobileLLaMA-1.4B's projections; the loop is the same for every size.
_WIDTH = _FEATURES = 2048
# The schemes whose weights are looked up.
PACKED_SCHEMES = ("q4a8", "q3a8")
# Products that a lane of a register adds at once.
_DEPTH = 4


@dataclass(frozen=True)
class Processor:
    """A kind of CPU that the loop is compiled for.

    Attributes:
        target: How it is described to LLVM.
        mnemonic: The instruction that multiplies bytes there.
    """

    target: Mapping[str, Any]
    mnemonic: str


PROCESSORS = (
    Processor(tvm_options(KRYO), "sdot"),
    Processor(
        {
            "kind": "llvm",
            "mtriple": "x86_64-linux-gnu",
            "mcpu": "haswell",
            "mattr": ["+avx2", "+fma", "+f16c"],
        },
        "vpmaddubsw",
    ),
    Processor(
        {
            "kind": "llvm",
            "mtriple": "x86_64-linux-gnu",
            "mcpu": "cascadelake",
            "mattr": ["+avx512f", "+avx512bw", "+avx512vnni"],
        },
        "vpdpbusd",
    ),
    Processor(
        {
            "kind": "llvm",
            "mtriple": "x86_64-linux-gnu",
            "mcpu": "icelake-server",
            "mattr": ["+avx512f", "+avx512bw", "+avx512vnni", "+avx512vbmi"],
        },
        "vpdpbusd",
    ),
)


@dataclass(frozen=True)
class Loop:
    """The loop's instructions on one kind of CPU.

    Attributes:
        name: The instruction set's.
        scheme: The name of the scheme.
        mnemonic: The instruction that multiplies bytes.
        body: Of one iteration.
        products: Weights that an iteration multiplies.
    """

    name: str
    scheme: str
    mnemonic: str
    body: tuple[Instruction, ...]
    products: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and of their int8 scales that an iteration reads."""
        bits = SCHEMES[self.scheme].weights.bits
        return self.products * bits // 8 + self.products // GROUP_SIZE

    @property
    def per_byte(self) -> float:
        """Instructions for a byte of weights."""
        return len(self.body) / self.weight_bytes

    @property
    def loads(self) -> int:
        """Instructions that read memory."""
        return sum(instruction.loads for instruction in self.body)

    @property
    def spills(self) -> int:
        """Instructions that write memory, of which one row needs none, or use the stack."""
        return sum(each.stores or each.is_on_stack for each in self.body)

    @property
    def work(self) -> roofline.LoopWork:
        """What a core has to do for an iteration."""
        return roofline.loop_work(self.body, self.weight_bytes)


def compile_loop(processor: Processor, scheme: str = PACKED_SCHEMES[0]) -> Loop:
    """Compile the kernel that decodes a token, and read its loop."""
    target = Target(dict(processor.target))
    kernel = decode_kernel(target, _WIDTH, _FEATURES, scheme)
    with target:
        instructions = find_instructions(target)
    body = kernel_loop(kernel, target, processor.mnemonic)
    count = sum(each.mnemonic == processor.mnemonic for each in body)
    products = count * instructions.lanes * _DEPTH
    return Loop(instructions.name, scheme, processor.mnemonic, body, products)


def all_loops() -> list[Loop]:
    """Compile the loops of all CPUs and schemes, those of the phone's CPU first."""
    return [
        compile_loop(processor, scheme) for processor in PROCESSORS for scheme in PACKED_SCHEMES
    ]


def table(loops: Sequence[Loop]) -> str:
    """Write loops as Markdown."""
    lines = [
        "| instruction set | scheme | products | instructions per iteration | weight bytes "
        "| instructions per byte | loads | spills |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {loop.name} | `{loop.scheme}` | `{loop.mnemonic}` | {len(loop.body)} "
        f"| {loop.weight_bytes} | {loop.per_byte:.3f} | {loop.loads} | {loop.spills} |"
        for loop in loops
    ]
    return "\n".join(lines) + "\n"


def decode_kernel(
    target: Target, width: int, features: int, scheme: str = PACKED_SCHEMES[0]
) -> tirx.PrimFunc:
    """Return the kernel that multiplies one row with a scheme's weights."""
    linear_format = LinearFormat(SCHEMES[scheme], PANELS)
    return layer_kernel(linear_signature(linear_format, 1, width, features), target)


def layer_kernel(op: Signature, target: Target) -> tirx.PrimFunc:
    """Return the kernel of a linear layer."""
    with target:
        kernel = find_kernels("cpu").build(op)
    assert kernel is not None
    return kernel


def kernel_loop(kernel: tirx.PrimFunc, target: Target, mnemonic: str) -> tuple[Instruction, ...]:
    """Compile a kernel, and return its loop that holds the most of a mnemonic."""
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    assembly = tvm.compile(module, target=target).mod.inspect_source("asm")
    return innermost_loop(assembly, mnemonic)


def main() -> None:
    """Print the tables, or put them into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.instructions", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT}")
    options = parser.parse_args()
    loops = all_loops()
    tables = {"instructions": table(loops), "roofline": roofline.table(KRYO, loops[0].work)}
    for name, text in tables.items():
        print(text)
        if options.write:
            write_table(DOCUMENT, name, text)


if __name__ == "__main__":
    main()
