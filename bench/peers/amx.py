"""Prints compiler flags that leave AMX out where CPUID reports it but programs cannot use it.

``-march=native`` believes CPUID, and some virtual machines report AMX whose instructions they then
refuse: what llama.cpp builds of itself there ends by SIGILL. Where AMX works, nothing is printed,
so that llama.cpp has what it can use. ``python -m mvlm.bench.peers.amx`` prints the flags.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

CPU_FACTS = Path("/proc/cpuinfo")
_PROBE = Path(__file__).with_suffix(".c")
_WITHOUT = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def build_flags(cpu_facts: Path = CPU_FACTS, probe: Path = _PROBE) -> str:
    """Return the flags for C and C++; none where CPUID reports no AMX.

    Args:
        cpu_facts: Linux's list of what CPUID reports.
        probe: A C program that exits with 0 where AMX works.
    """
    try:
        is_reported = "amx_tile" in cpu_facts.read_text().split()
    except OSError:
        return ""
    return _WITHOUT if is_reported and not _runs(probe) else ""


def _runs(probe: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/amx"
        built = subprocess.run(
            ["cc", "-mamx-tile", "-o", program, str(probe)], capture_output=True, check=False
        )
        return built.returncode == 0 and (
            subprocess.run([program], capture_output=True, check=False).returncode == 0
        )


if __name__ == "__main__":
    print(build_flags())
