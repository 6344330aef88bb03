"""How fast this machine reads memory: decoding, which reads every weight once, is held against it.

The method: as many threads as the model runs on, each taking the bitwise or of its share of one
uint64 array, again and again. NumPy does that with vector loads, outside Python's global lock, at
the speed of a plain read loop in C (35 against 36 GB/s, where the largest int32 came to 30). The
array is several times the last-level cache, so that reads miss it.

The measurement runs in a child process, lest its array count as the model's memory, and on cores
that the caller names: TVM ties the thread that loads a model to one core, which a child inherits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mvlm.runtime.errors import MvlmError
from mvlm.runtime.machine import read_machine
from mvlm.runtime.start_module import module_command

METHOD = "bitwise or of an array beyond the cache, NumPy, one slice a thread, median of passes"

_read = np.bitwise_or.reduce
_PASSES = 8
_LEAST_BYTES = 256 << 20
_CACHES = 4  # the array's size in last-level caches
_TIMEOUT_SECONDS = 120


def measure_in_child(threads: int, cores: Collection[int]) -> list[float]:
    """Measure in a process of its own.

    Args:
        threads: Threads that read at once, at least 1.
        cores: The cores they may run on, by the system's numbers.

    Returns:
        Bytes read in a second, in each of several passes.

    Raises:
        MvlmError: The child failed, for lack of memory for instance.
    """
    request = json.dumps({"threads": threads, "cores": sorted(cores)})
    command = module_command("mvlm.bench.bandwidth", request)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
        )
        return [float(rate) for rate in json.loads(done.stdout)]
    except (subprocess.SubprocessError, ValueError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        raise MvlmError("the read bandwidth cannot be measured", found=" ".join(detail)) from None


def measure(threads: int, size: int | None = None, passes: int = _PASSES) -> list[float]:
    """Measure in this process; see :func:`measure_in_child`.

    Args:
        threads: Threads that read at once.
        size: Bytes of the array; chosen for this machine if None.
        passes: How often the array is read.
    """
    # Ones, because the system backs untouched zeros with a single page.
    values = np.ones((size or _array_bytes()) // 8, np.uint64)
    shares = np.array_split(values, threads)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_read, shares))
        for _ in range(passes):
            begin = time.perf_counter()
            list(pool.map(_read, shares))
            rates.append(values.nbytes / (time.perf_counter() - begin))
    return rates


def _array_bytes() -> int:
    wanted = max(_LEAST_BYTES, _CACHES * _last_level_cache_bytes())
    return min(wanted, read_machine().memory_bytes // 4)


def _last_level_cache_bytes(caches: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Return the size of the largest cache, or 0 where the system does not say."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    largest = 0
    for file in caches.glob("index*/size"):
        text = file.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in units:
            largest = max(largest, int(text[:-1]) * units[text[-1]])
    return largest


def _main(request: str) -> None:
    wanted = json.loads(request)
    os.sched_setaffinity(0, wanted["cores"])
    print(json.dumps(measure(wanted["threads"])))


if __name__ == "__main__":
    _main(sys.argv[1])
