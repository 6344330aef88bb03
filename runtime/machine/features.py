"""CPU features by the kernel's names and by LLVM's, and how this CPU's are found out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping

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
