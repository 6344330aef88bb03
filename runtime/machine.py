"""What machine this is: architecture, CPU features, cores, memory; read without any compiler."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

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
    """

    architecture: str
    cpu: str
    features: frozenset[str]
    cores: int
    memory_bytes: int

    @property
    def llvm_attributes(self) -> list[str]:
        """LLVM's ``+feature`` and ``-feature`` for everything in :data:`FEATURES`.

        The absent ones are switched off by name: LLVM derives features from the CPU's model, and a
        virtual machine may mask some of them.
        """
        known = FEATURES.get(self.architecture, {})
        return [("+" if name in self.features else "-") + llvm for name, llvm in known.items()]


def read_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Read this machine's description."""
    architecture = {"arm64": "aarch64", "AMD64": "x86_64"}.get(
        platform.machine(), platform.machine()
    )
    fields = _first_values(cpuinfo)
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        architecture=architecture,
        cpu=fields.get("model name") or fields.get("CPU part") or architecture,
        features=frozenset(flags & set(FEATURES.get(architecture, {}))),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def available_memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the memory that this process may still take, or None where nothing says so.

    The least of what the system could free and what is left of a container's limit.
    """
    found = []
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        limit, used = (int((cgroup / f"memory.{key}").read_text()) for key in ("max", "current"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Files that are kept in memory make room when it is asked for.
        found.append(max(limit - used + int(stat["file"]), 0))
    except (OSError, KeyError, ValueError):  # no limit reads as "max"
        pass
    return min(found, default=None)


def peak_rss_bytes() -> int:
    """Return the largest resident memory that this process has had, in bytes.

    Not rusage's ``ru_maxrss``, which a child inherits from its parent.
    """
    try:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _first_values(cpuinfo: Path) -> dict[str, str]:
    """Read each key's first value; every further core repeats them."""
    fields: dict[str, str] = {}
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return fields
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields
