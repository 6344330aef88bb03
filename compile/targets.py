"""Targets: the devices that models are compiled for. All that is known of a device is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm.target import Target, codegen

from mvlm.compile.toolchain import Linker, find_host_linker
from mvlm.runtime.errors import TargetError, UsageError
from mvlm.runtime.machine import Machine, read_machine

_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


# How the Snapdragon 888's cores (Kryo 680: Cortex-X1, A78 and A55) are described to LLVM: by the
# core whose instructions all of them have, Armv8.2 with dot products and float16 arithmetic.
SNAPDRAGON_888_CORES: Mapping[str, Any] = {
    "kind": "llvm",
    "mtriple": _TRIPLES["aarch64"],
    "mcpu": "cortex-a76",
    "mattr": ["+v8.2a", "+dotprod", "+fullfp16", "+neon"],
    "num-cores": 4,
}


@dataclass(frozen=True)
class CompileTarget:
    """A device, ready to be compiled for.

    Attributes:
        name: Its name on the command line.
        architecture: Its CPU's, as ``uname -m`` says it.
        features: CPU features that the code may use, by /proc/cpuinfo's names.
        kernels: The folder of `schedules` that serves it.
        options: The whole TVM target.
        linker: Makes the shared library.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    kernels: str
    options: Mapping[str, Any]
    linker: Linker

    @property
    def tvm(self) -> Target:
        """The target as TVM's object."""
        return Target(dict(self.options))


@dataclass(frozen=True)
class TargetDescription:
    """A device that can be named.

    Attributes:
        name: Its name on the command line.
        summary: What it is, in a line.
        prepare: Reads the machine or the toolchain, and raises TargetError where it cannot serve.
    """

    name: str
    summary: str
    prepare: Callable[[], CompileTarget]


def find_target(name: str) -> TargetDescription:
    """Return the target of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in TARGETS:
        raise UsageError("unknown target", expected=" or ".join(TARGETS), found=repr(name))
    return TARGETS[name]


def host_target(machine: Machine | None = None) -> CompileTarget:
    """Describe the CPU of this machine, by what it really has.

    Raises:
        TargetError: No code can be generated for its architecture, or nothing links it.
    """
    machine = machine or read_machine()
    if machine.architecture not in _TRIPLES:
        raise TargetError(
            "this machine's architecture is not supported",
            expected=" or ".join(_TRIPLES),
            found=machine.architecture,
        )
    options: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": _TRIPLES[machine.architecture],
        "mattr": machine.llvm_attributes,
    }
    cpu = codegen.llvm_get_system_cpu()
    if cpu:
        options["mcpu"] = cpu
    return CompileTarget(
        name="host",
        architecture=machine.architecture,
        features=tuple(sorted(machine.features)),
        kernels="cpu",
        options=options,
        linker=find_host_linker(),
    )


TARGETS = {
    description.name: description
    for description in (TargetDescription("host", "the CPU of this machine", host_target),)
}
