"""What a target's description holds; everything that is known of a device is in one.

The compiler, the loader, the tuner and the command line read these and nothing else, so that a
device is added by a file: see `boards/` for ours, which are written like a user's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mvlm.runtime.machine import FEATURES, Machine
from mvlm.runtime.targets.platforms import PLATFORMS
from mvlm.runtime.toml_file import FieldError

# What stands for "as this machine has it".
NATIVE = "native"
GPU_APIS = ("cuda", "opencl")

_KERNELS = re.compile(r"[a-z][a-z0-9_]{0,63}")

_LONGEST_NAME = 64


def _require(key: str, holds: bool, expected: str, found: object) -> None:
    if not holds:
        raise FieldError(key, expected, found)


@dataclass(frozen=True)
class Core:
    """Cores of one kind.

    Attributes:
        name: Its maker's.
        count: How many the chip has.
        part: ``41:d44``, implementer and part in hex, as /proc/cpuinfo has them.
        gigahertz: Their highest clock.
        width: Instructions that are decoded in a cycle.
        vector: 128-bit operations in a cycle.
        loads: 16-byte loads in a cycle.
        in_order: Whether a load holds up the vector unit.
    """

    name: str
    count: int
    part: str
    gigahertz: float
    width: float
    vector: float
    loads: float
    in_order: bool = False

    def __post_init__(self) -> None:
        for key in ("count", "gigahertz", "width", "vector", "loads"):
            _require(key, getattr(self, key) > 0, "a number above 0", getattr(self, key))


@dataclass(frozen=True)
class Cpu:
    """The CPU that code is generated for; of a GPU's board, its CPU.

    Attributes:
        architecture: As ``uname -m`` says it, or ``native``: then everything else is this
            machine's.
        baseline: Whether the code may use only what every CPU of a native architecture has.
        llvm: The name by which LLVM knows it, or the newest core whose instructions all of its
            cores have.
        features: What the code may use, by /proc/cpuinfo's names.
        cores: Kinds of cores, the fastest first; those that compute by default have at least half
            of the first one's speed.
        threads: Threads that compute by default.
    """

    architecture: str
    baseline: bool = False
    llvm: str = ""
    features: tuple[str, ...] = ()
    cores: tuple[Core, ...] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        known = (NATIVE, *FEATURES)
        _require("architecture", self.architecture in known, " or ".join(known), self.architecture)
        possible = FEATURES.get(self.architecture, {})
        for feature in self.features:
            _require("features", feature in possible, " ".join(possible) or "none", feature)
        _require("threads", self.threads > 0, "a number above 0", self.threads)
        _require("baseline", not self.baseline or self.is_native, f"it with {NATIVE}", "true")
        _require("llvm", bool(self.llvm) or self.is_native, "a CPU's name", "''")

    @property
    def is_native(self) -> bool:
        """Whether it is this machine's."""
        return self.architecture == NATIVE

    def code_features(self, machine: Machine) -> frozenset[str]:
        """Return the features that code may use, given what this machine has."""
        if not self.is_native:
            return frozenset(self.features)
        return frozenset() if self.baseline else machine.features


@dataclass(frozen=True)
class Gpu:
    """A GPU and its limits.

    Attributes:
        api: ``cuda`` or ``opencl``.
        arch: ``sm_87``; of an OpenCL device, TVM's name for it: ``adreno``.
        threads_per_block: Work items of a group at the most.
        shared_bytes_per_block: Shared or local memory of a group at the most.
        warp: Threads that run in step.
        image_side: The largest side of a two-dimensional image; 0 where none is used.
        float16: Whether it computes in float16.
    """

    api: str
    arch: str = ""
    threads_per_block: int = 256
    shared_bytes_per_block: int = 32768
    warp: int = 1
    image_side: int = 0
    float16: bool = False

    def __post_init__(self) -> None:
        _require("api", self.api in GPU_APIS, " or ".join(GPU_APIS), self.api)
        for key in ("threads_per_block", "shared_bytes_per_block", "warp"):
            _require(key, getattr(self, key) > 0, "a number above 0", getattr(self, key))


@dataclass(frozen=True)
class Memory:
    """The device's memory.

    Attributes:
        gigabytes_s: Its peak bandwidth, as the data sheet has it; speeds are estimated with it.
        gigabytes: How much there is at the least.
    """

    gigabytes_s: float
    gigabytes: float

    def __post_init__(self) -> None:
        for key in ("gigabytes_s", "gigabytes"):
            _require(key, getattr(self, key) > 0, "a number above 0", getattr(self, key))


@dataclass(frozen=True)
class Needs:
    """What the device must have, besides the CPU's features.

    Attributes:
        platforms: The systems that it may run, the usual one first: linux, android.
        page_bytes: Pages of memory up to this size are linked for.
        glibc: The oldest version that is linked for, on Linux.
        android_api: The oldest level, on Android.
        driver: What the GPU needs, for people.
    """

    platforms: tuple[str, ...] = ("linux",)
    page_bytes: int = 65536
    glibc: str = "2.28"
    android_api: int = 24
    driver: str = ""

    def __post_init__(self) -> None:
        names = " or ".join(PLATFORMS)
        _require("platforms", bool(self.platforms), f"{names}, one at least", "none")
        for platform in self.platforms:
            _require("platforms", platform in PLATFORMS, names, platform)
        power = self.page_bytes >= 4096 and self.page_bytes & (self.page_bytes - 1) == 0
        _require("page_bytes", power, "a power of two from 4096", self.page_bytes)
        parts = self.glibc.split(".")
        numbers = len(parts) == 2 and all(part.isdecimal() for part in parts)
        _require("glibc", numbers, "a version such as 2.28", self.glibc)


@dataclass(frozen=True)
class Toolchain:
    """With what code is made for the device, where that is not to be looked for.

    Attributes:
        linker: The command of a C compiler that links for it, with its options.
    """

    linker: str = ""


@dataclass(frozen=True)
class Recognition:
    """By what the device is recognised.

    Attributes:
        core_parts: The kinds of cores that it has, all of them: ``41:d44``.
        names: What its device tree or its system may call it, one of them.
    """

    core_parts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetDescription:
    """A device that can be named.

    Attributes:
        name: Its name on the command line.
        summary: What it is, in a line.
        kernels: The folder of `schedules` that serves it.
        cpu: Its CPU.
        memory: Its memory; None where it is this machine's.
        needs: What it must have.
        toolchain: With what code is made for it.
        gpu: Its GPU, if that is what computes.
        recognition: By what it is recognised.
    """

    name: str
    summary: str
    kernels: str
    cpu: Cpu
    memory: Memory | None = None
    needs: Needs = Needs()
    toolchain: Toolchain = Toolchain()
    gpu: Gpu | None = None
    recognition: Recognition = Recognition()

    @property
    def device_kind(self) -> str:
        """The kind of the device that computes: cpu, cuda or opencl."""
        return self.gpu.api if self.gpu else "cpu"

    def __post_init__(self) -> None:
        letters = self.name.replace("-", "").replace(".", "")
        proper = letters.isascii() and letters.isalnum() and self.name == self.name.lower()
        _require(
            "name",
            proper and len(self.name) <= _LONGEST_NAME,
            "lower-case letters, digits, -",
            self.name,
        )
        _require(
            "kernels", bool(_KERNELS.fullmatch(self.kernels)), "a kernel set's name", self.kernels
        )
        fits = self.kernels == self.gpu.api if self.gpu else self.kernels not in GPU_APIS
        _require("kernels", fits, "a CPU's kernels, or the [gpu] table's api", self.kernels)
        if not self.cpu.is_native:
            _require("memory", self.memory is not None, "a table", "none")
