"""Opens an artifact in a process of its own and prints what that took: for `footprint`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from mvlm.runtime.model import Model

_TIMES = 3
_FIRST_ORDINARY_ID = 3


def beside_bytes() -> int:
    """Resident memory of this process that is not a mapped file, in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))


def main() -> None:
    """Open the artifact several times, fill its context once."""
    folder, times = Path(sys.argv[1]), []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        model = Model(folder)
        times.append(time.perf_counter() - begin)
    cache, settings = model.new_cache(), model.settings
    ids = np.random.default_rng(0).integers(
        _FIRST_ORDINARY_ID, settings.vocabulary, settings.context
    )
    if settings.image is not None:
        size = settings.image.size
        model.project(model.vision_features(np.zeros((1, 3, size, size), np.float32)))
    for start in range(0, settings.context, settings.prefill_chunk):
        part = ids[start : start + settings.prefill_chunk].tolist()
        model.prefill(model.embed(part), cache)
    print(json.dumps({"open_seconds": statistics.median(times), "beside_bytes": beside_bytes()}))


if __name__ == "__main__":
    main()
