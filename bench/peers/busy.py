"""A process that keeps one core busy, on whichever core it is put: ``python -m ...peers.busy``.

It computes in registers, so that what it takes from others is time on a core, and not memory.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mvlm.bench.peers.worker import end_with_parent
from mvlm.runtime.start_module import module_command


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep a core busy within the block."""
    command = module_command("mvlm.bench.peers.busy")
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
