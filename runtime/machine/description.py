"""The machine: architecture, CPU features, system, cores, memory.

CPU features have two names, the kernel's in /proc/cpuinfo and LLVM's; :data:`FEATURES` has both.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_GLIBC = "CS_GNU_LIBC_VERSION"
_GETPROP = Path("/system/bin/getprop")  # Android's

# /proc/cpuinfo's name of a feature, and LLVM's, for those that change the code we generate. An
# artifact names the ones that it was compiled for and runs where all of them are.
FEATURES = {
    "x86_64": {
        "ssse3": "ssse3",
        "sse4_1": "sse4.1",
        "sse4_2": "sse4.2",
        "popcnt": "popcnt",
        "avx": "avx",
        "avx2": "avx2",
        "fma": "fma",
        "f16c": "f16c",
        "bmi1": "bmi",
        "bmi2": "bmi2",
        "avx512f": "avx512f",
        "avx512cd": "avx512cd",
        "avx512bw": "avx512bw",
        "avx512dq": "avx512dq",
        "avx512vl": "avx512vl",
        "avx512vbmi": "avx512vbmi",
        "avx512_vnni": "avx512vnni",
        "avx512_bf16": "avx512bf16",
        "avx512_fp16": "avx512fp16",
        "avx_vnni": "avxvnni",
        "amx_tile": "amx-tile",
        "amx_int8": "amx-int8",
    },
    "aarch64": {
        "asimd": "neon",
        "asimddp": "dotprod",
        "asimdhp": "fullfp16",
        "atomics": "lse",
        "i8mm": "i8mm",
        "bf16": "bf16",
        "sve": "sve",
        "sve2": "sve2",
    },
}

# The line of /proc/cpuinfo that has them.
FEATURE_LINES = {"x86_64": "flags", "aarch64": "Features"}

# Linux's include/uapi/linux/auxvec.h, and arch/arm64/include/uapi/asm/hwcap.h.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_HWCAPS = {
    "asimd": (_AT_HWCAP, 1),
    "atomics": (_AT_HWCAP, 8),
    "asimdhp": (_AT_HWCAP, 10),
    "asimddp": (_AT_HWCAP, 20),
    "sve": (_AT_HWCAP, 22),
    "sve2": (_AT_HWCAP2, 1),
    "i8mm": (_AT_HWCAP2, 13),
    "bf16": (_AT_HWCAP2, 14),
}


@dataclass(frozen=True)
class Machine:
    """A machine as far as compiled code cares.

    Attributes:
        architecture: ``x86_64`` or ``aarch64``, as ``uname -m`` says it.
        cpu: The CPU's marketing name, for people.
        features: The features of :data:`FEATURES` that the CPU and the kernel offer, by
            /proc/cpuinfo's names.
        cores: Cores that this process may run on.
        memory_bytes: Physical memory.
        platform: The system whose libraries programs use: ``linux`` (glibc) or ``android``.
        libc: The C library and its version: ``glibc 2.36``; on Android ``api 33``, the level of
            the system; empty where it is another one.
        page_bytes: Of a page of memory.
        core_parts: The kinds of an Arm CPU's cores: ``41:d44``, implementer and part in hex.
        names: What the board and its chip call themselves: the device tree's model and
            compatible strings, /proc/cpuinfo's Hardware, Android's properties.
        is_emulated: Whether another architecture's CPU only plays this one: its times say nothing.
    """

    architecture: str
    cpu: str
    features: frozenset[str]
    cores: int
    memory_bytes: int
    platform: str = "linux"
    libc: str = ""
    page_bytes: int = 4096
    core_parts: frozenset[str] = field(default=frozenset())
    names: tuple[str, ...] = ()
    is_emulated: bool = False

    @property
    def llvm_attributes(self) -> list[str]:
        """LLVM's ``+feature`` and ``-feature`` for everything in :data:`FEATURES`.

        The absent ones are switched off by name: LLVM derives features from the CPU's model, and a
        virtual machine may mask some of them.
        """
        return llvm_attributes(self.architecture, self.features)


def llvm_attributes(architecture: str, features: frozenset[str]) -> list[str]:
    """Return LLVM's ``+feature`` or ``-feature`` for every known feature of an architecture."""
    known = FEATURES.get(architecture, {})
    return [("+" if name in features else "-") + llvm for name, llvm in known.items()]


def read_features(
    architecture: str, cpuinfo: Mapping[str, str], auxiliary: Callable[[int], int]
) -> frozenset[str]:
    """Return the features of :data:`FEATURES` that the CPU and the kernel offer.

    Args:
        architecture: As ``uname -m`` says it.
        cpuinfo: The fields of /proc/cpuinfo.
        auxiliary: Returns a value that the kernel handed to this process (:func:`auxiliary_value`):
            there an Arm CPU's features stand even where /proc/cpuinfo is another machine's, as
            under an emulator.
    """
    line = cpuinfo.get(FEATURE_LINES.get(architecture, ""))
    if line is None and architecture == "aarch64":
        words = {word: auxiliary(word) for word in (_AT_HWCAP, _AT_HWCAP2)}
        return frozenset(n for n, (word, bit) in _ARM_HWCAPS.items() if words[word] >> bit & 1)
    return frozenset(set((line or "").split()) & FEATURES.get(architecture, {}).keys())


def auxiliary_value(kind: int) -> int:
    """Return a value of this process's auxiliary vector, 0 if it has none of the kind.

    By the C library: the file /proc/self/auxv is not what it should be under qemu 7.
    """
    try:
        read = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0
    read.restype, read.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(read(kind))


def read_machine(
    cpuinfo: Path = Path("/proc/cpuinfo"),
    device_tree: Path = Path("/proc/device-tree"),
    auxiliary: Callable[[int], int] = auxiliary_value,
) -> Machine:
    """Read this machine's description."""
    architecture = {"arm64": "aarch64", "AMD64": "x86_64"}.get(
        platform.machine(), platform.machine()
    )
    entries = _entries(cpuinfo)
    first = {key: values[0] for key, values in entries.items()}
    names = _names(device_tree, first.get("Hardware"), *_android_names())
    named = first.get("model name") or (names[0] if names else None) or first.get("CPU part")
    return Machine(
        architecture=architecture,
        cpu=named or architecture,
        features=read_features(architecture, first, auxiliary),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform="android" if _android_api() is not None else "linux",
        libc=_libc(),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        core_parts=_core_parts(entries),
        names=names,
        # qemu shows the true CPU's /proc/cpuinfo.
        is_emulated=any(
            line in entries for other, line in FEATURE_LINES.items() if other != architecture
        ),
    )


def _entries(cpuinfo: Path) -> dict[str, list[str]]:
    """Read each key's values; every further core has most of them again."""
    entries: dict[str, list[str]] = {}
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return entries
    for line in text.splitlines():
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), []).append(value.strip())
    return entries


def _core_parts(entries: dict[str, list[str]]) -> frozenset[str]:
    pairs = zip(entries.get("CPU implementer", ()), entries.get("CPU part", ()), strict=False)
    return frozenset(
        f"{implementer.removeprefix('0x')}:{part.removeprefix('0x')}" for implementer, part in pairs
    )


def _names(device_tree: Path, *others: str | None) -> tuple[str, ...]:
    """Read what a board calls itself, the name for people first."""
    names = []
    for file in ("model", "compatible"):
        try:
            names += (device_tree / file).read_text(errors="replace").split("\0")
        except OSError:
            continue
    return tuple(name for name in (*names, *others) if name)


def _android_names() -> list[str]:
    """Ask Android for the names of chip and device: programs may not read its device tree.

    Whatever C library this Python has: a bundle brings another one to a phone.
    """
    names = []
    for key in ("ro.soc.model", "ro.product.model") if _GETPROP.is_file() else ():
        try:
            found = subprocess.run([_GETPROP, key], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            break
        names.append(found.stdout.strip())
    return names


def _android_api() -> int | None:
    """Return the API level that this Python was built for, or None where this is no Android."""
    level = getattr(sys, "getandroidapilevel", None)
    return None if level is None else int(level())


def _libc() -> str:
    api = _android_api()
    if api is not None:
        # The system's own level, which is the Python's or higher.
        return f"api {_system_api() or api}"
    try:
        return os.confstr(_GLIBC) or ""
    except (ValueError, OSError):
        return ""


def _system_api() -> int | None:
    release = getattr(platform, "android_ver", None)  # Python 3.13 and newer
    return int(release().api_level) or None if release else None
