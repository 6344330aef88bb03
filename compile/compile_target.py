"""A target with its toolchain, ready to be compiled for. Imports tvm only when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvlm.compile.toolchain import Linker, find_linker, find_runtime_library
from mvlm.compile.toolchain.runtime_library import LIBRARY
from mvlm.runtime.artifact.target_entry import DeviceEntry
from mvlm.runtime.device.requirements import HOST, CpuRequirements
from mvlm.runtime.errors import TargetError
from mvlm.runtime.machine import FEATURES, Machine, read_machine
from mvlm.runtime.machine.description import llvm_attributes
from mvlm.runtime.targets import TargetDescription, choose_platform
from mvlm.runtime.targets.description import Gpu
from mvlm.runtime.targets.platforms import Platform
from mvlm.schedules.registry import find_needs

if TYPE_CHECKING:
    from tvm.target import Target


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
        runtime_libraries: Those that the artifact carries for the device, by their files' names.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    kernels: str
    options: Mapping[str, Any]
    linker: Linker
    runtime_libraries: Mapping[str, bytes]

    @property
    def device(self) -> DeviceEntry:
        """The device that the code runs on, and what it needs of it."""
        return DeviceEntry(HOST, {HOST: CpuRequirements(self.architecture, self.features)})

    @property
    def tvm(self) -> Target:
        """The target as TVM's object."""
        from tvm.target import Target

        return Target(dict(self.options))


@dataclass(frozen=True)
class Requirement:
    """One thing that compiling for a target takes on this machine.

    Attributes:
        name: What it is.
        found: What is there, for people; None if nothing is.
        missing: What to say where it is missing.
    """

    name: str
    found: str | None
    missing: TargetError | None = None


def prepare_target(
    description: TargetDescription, platform: str | None = None, machine: Machine | None = None
) -> CompileTarget:
    """Find everything that compiling for a device takes.

    Args:
        description: The device.
        platform: The system that it runs; the usual one if None.
        machine: This machine, if it is not to be read.

    Raises:
        UsageError: The device does not run that system.
        TargetError: Something is missing here; says how to install it.
    """
    machine = machine or read_machine()
    system = choose_platform(description, platform, machine)
    architecture, features = _cpu(description, machine)
    require_kernels(description, machine)
    return CompileTarget(
        name=description.name,
        architecture=architecture,
        features=tuple(sorted(features)),
        kernels=description.kernels,
        options=tvm_options(description, platform, machine),
        linker=_linker(description, architecture, system),
        runtime_libraries={LIBRARY: find_runtime_library(architecture, system)},
    )


def requirements(
    description: TargetDescription, platform: str | None = None, machine: Machine | None = None
) -> list[Requirement]:
    """Say of each thing that compiling for a device takes whether it is here."""
    machine = machine or read_machine()
    system = choose_platform(description, platform, machine)
    architecture, _ = _cpu(description, machine)

    def compiler() -> str:
        from importlib import metadata

        try:
            return f"apache-tvm {metadata.version('apache-tvm')}"
        except metadata.PackageNotFoundError:
            raise TargetError(
                "no compiler", expected="apache-tvm", fix='`pip install "mvlm[compile]"`'
            ) from None

    def library() -> str:
        return f"{len(find_runtime_library(architecture, system)) / 1e6:.1f} MB"

    return [
        _ask("kernels", lambda: require_kernels(description, machine)),
        _ask("compiler", compiler),
        _ask("linker", lambda: _linker(description, architecture, system).description),
        _ask("runtime library", library),
    ]


def _linker(description: TargetDescription, architecture: str, system: Platform) -> Linker:
    return find_linker(architecture, system, description.needs, description.toolchain.linker)


def _ask(name: str, find: Callable[[], str]) -> Requirement:
    try:
        return Requirement(name, find())
    except TargetError as error:
        return Requirement(name, None, error)


def tvm_options(
    description: TargetDescription, platform: str | None = None, machine: Machine | None = None
) -> dict[str, Any]:
    """Return the whole TVM target; arguments and errors are those of :func:`prepare_target`."""
    machine = machine or read_machine()
    cpu, system = description.cpu, choose_platform(description, platform, machine)
    architecture, features = _cpu(description, machine)
    options: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": system.triple_for(architecture),
        "mattr": llvm_attributes(architecture, features),
    }
    if not cpu.is_native:  # this machine's number would make artifacts differ that are the same
        options["num-cores"] = cpu.threads
    name = cpu.llvm
    if cpu.is_native and not cpu.baseline:
        name = _native_cpu()
    if name:
        options["mcpu"] = name
    return options if description.gpu is None else _gpu_options(description.gpu) | {"host": options}


def _gpu_options(gpu: Gpu) -> dict[str, Any]:
    options: dict[str, Any] = {
        "kind": gpu.api,
        "max_num_threads": gpu.threads_per_block,
        "thread_warp_size": gpu.warp,
    }
    if gpu.api == "cuda":
        limits = {
            "max_threads_per_block": gpu.threads_per_block,
            "max_shared_memory_per_block": gpu.shared_bytes_per_block,
        }
        return options | limits | ({"arch": gpu.arch} if gpu.arch else {})
    limits = {"max_shared_memory_per_block": gpu.shared_bytes_per_block}
    if gpu.image_side:
        limits["texture_spatial_limit"] = gpu.image_side
    return options | limits | ({"device": gpu.arch} if gpu.arch else {})


def _native_cpu() -> str:
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu() or "")


def _cpu(description: TargetDescription, machine: Machine) -> tuple[str, frozenset[str]]:
    """Return the architecture and the features that code is generated for."""
    cpu = description.cpu
    if not cpu.is_native:
        return cpu.architecture, cpu.code_features(machine)
    if machine.architecture not in FEATURES:
        raise TargetError(
            "this machine's architecture is not supported",
            expected=" or ".join(FEATURES),
            found=machine.architecture,
        )
    return machine.architecture, cpu.code_features(machine)


def require_kernels(description: TargetDescription, machine: Machine | None = None) -> str:
    """Return the name of a target's kernel set, after checking that it can serve the target.

    Imports no tvm.

    Args:
        description: The target.
        machine: This machine, if it is not to be read.

    Raises:
        TargetError: There is no such set yet, or it needs what the device does not have.
    """
    needs = find_needs(description.kernels)
    if needs.kind != description.device_kind:
        raise TargetError(
            f"the kernels {description.kernels} are for another kind of device",
            expected=needs.kind,
            found=f"{description.device_kind} ({description.name})",
            fix="Name other kernels in the target's file.",
        )
    missing = sorted(needs.features - description.cpu.code_features(machine or read_machine()))
    if missing:
        raise TargetError(
            f"the kernels {description.kernels} need CPU features that {description.name} lacks",
            expected=", ".join(sorted(needs.features)),
            found=f"a CPU without {', '.join(missing)}",
            fix="Name other kernels in the target's file.",
        )
    return description.kernels
