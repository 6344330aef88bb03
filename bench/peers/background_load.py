"""A process that keeps one core busy: ``python -m mvlm.bench.peers.background_load``.

It computes in registers, so that it takes time on a core from other processes, but no memory.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mvlm.bench.peers.worker import end_with_parent
from mvlm.runtime.start_module import module_command


@contextmanager
def background_load() -> Iterator[None]:
    """Keep one core busy within the block."""
    command = module_command("mvlm.bench.peers.background_load")
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield
        finally:
            child.kill()


def _main() -> None:
    end_with_parent()
    print("busy", flush=True)
    end = time.monotonic() + 3600.0
    while time.monotonic() < end:
        sum(range(10_000))


if __name__ == "__main__":
    _main()
