"""Loads an artifact in a process of its own and prints time and memory: for `footprint`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from mvlm.bench.random_tokens import random_tokens
from mvlm.runtime.engine import Engine
from mvlm.runtime.model import Model

_TIMES = 3
_LONGEST_PROMPT = 2048  # positions: MobileLLaMA's whole context


def anonymous_bytes() -> int:
    """Resident memory of this process that is not a mapped file, in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))


def main() -> None:
    """Load the artifact several times, encode an image and fill the context once."""
    folder, times = Path(sys.argv[1]), []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        model = Model(folder)
        times.append(time.perf_counter() - begin)
    engine, settings = Engine(model), model.settings
    positions = min(_LONGEST_PROMPT, settings.context)
    ids = random_tokens(settings.vocabulary, positions)
    if settings.image is not None:
        size = settings.image.size
        model.project(model.vision_features(np.zeros((1, 3, size, size), np.float32)))
    engine.logits(ids)
    print(
        json.dumps(
            {
                "load_seconds": statistics.median(times),
                "anonymous_bytes": anonymous_bytes(),
                "cache_bytes": settings.cache.nbytes(settings.context),
            }
        )
    )


if __name__ == "__main__":
    main()
